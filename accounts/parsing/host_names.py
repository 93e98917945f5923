"""Host names of client metadata documents, in one canonical spelling.

A resolver accepts many spellings of one host. A deny list that compared raw text would
refuse only one of them.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext as _

LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
"""The last label of a host that resolves as IPv4, such as 127.1 or 0x7f000001."""
MAX_LENGTH = 253


def canonical_host(host: str) -> str:
    """Return lower-case IDNA without a final dot, or an IP address in its usual form.

    Raises ValueError if `host` is no host. `socket` uses the same IDNA codec.
    """
    if len(host) > MAX_LENGTH + len("."):
        raise ValueError("too long")
    if ":" in host:
        return _ipv6(host.removeprefix("[").removesuffix("]"))
    name = host.encode("idna").decode("ascii").lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > MAX_LENGTH or not all(LABEL.fullmatch(label) for label in labels):
        raise ValueError("no host name")
    if not NUMBER.fullmatch(labels[-1]):
        return name
    try:
        return socket.inet_ntoa(socket.inet_aton(name))
    except OSError as error:
        raise ValueError("no IPv4 address") from error


def _ipv6(text: str) -> str:
    address = ipaddress.IPv6Address(text)
    if address.scope_id is not None:
        raise ValueError("no zone of an interface")
    return str(address.ipv4_mapped or address)


def is_host(text: str) -> bool:
    """Whether `canonical_host` accepts it."""
    try:
        return bool(canonical_host(text))
    except ValueError:
        return False


def host_of_document(client_id: str) -> str:
    """Return the host of a client id that is a URL. Raises ValueError."""
    return canonical_host(urlsplit(client_id).hostname or "")


def is_document_at(client_id: str, host: str) -> bool:
    """Whether this client's metadata document is at `host`."""
    try:
        return host_of_document(client_id) == host
    except ValueError:
        return False


class HostField(models.CharField):  # type: ignore[type-arg]
    """A host name, stored and looked up in its canonical spelling."""

    def to_python(self, value: Any) -> Any:
        """Raises ValidationError unless the value is a host name or an IP address."""
        text = super().to_python(value)
        if not text:
            return text
        try:
            return canonical_host(text)
        except ValueError as error:
            message = _(
                "%s is not a host name. Enter a host such as claude.ai, "
                "without scheme, port, path, wildcard or space."
            )
            raise ValidationError(message % text[:80], "invalid") from error

    def pre_save(self, model_instance: Any, add: bool) -> Any:
        """Set the stored spelling on the object, too."""
        value = self.to_python(super().pre_save(model_instance, add))
        setattr(model_instance, self.attname, value)
        return value
