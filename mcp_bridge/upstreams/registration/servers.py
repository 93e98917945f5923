"""Save and remove upstream servers, with their credential and the audit."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext as _

from accounts.audit.record import record
from accounts.parsing.urls import split_url
from mcp_bridge.models import (
    CredentialMode,
    Primitive,
    UpstreamCredential,
    UpstreamServer,
    UpstreamStatus,
)
from mcp_bridge.upstreams.credentials import set_secret

HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
"""A token (RFC 9110 5.6.2)."""
RESERVED = (
    "accept",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)
"""Headers that belong to the connection, in lower case."""


def check_header(name: str, value: str) -> None:
    """Raises ValidationError for a header that cannot carry a credential."""
    reserved = name.lower() in RESERVED or name.lower().startswith("mcp-")
    if not HEADER_NAME.fullmatch(name) or reserved:
        text = _("%s cannot carry a credential. Use Authorization or X-API-Key.")
        raise ValidationError(text % name[:64])
    if not value.isascii() or not value.isprintable() or len(value) > 8192:
        raise ValidationError(
            _("The value of the header must be one line of printable ASCII.")
        )


def whole_header(name: str, value: str) -> str:
    """The value to send; a token alone in Authorization becomes `Bearer TOKEN`."""
    value = value.strip()
    alone = name.lower() == "authorization" and value and " " not in value
    return f"Bearer {value}" if alone else value


def url_origin(url: str) -> tuple[str, str]:
    """Scheme and authority of a URL, in lower case."""
    parts = split_url(url)
    return ("", "") if parts is None else (parts.scheme, parts.netloc.lower())


def secret_goes_to(
    server: UpstreamServer, credential: UpstreamCredential | None
) -> tuple[Any, ...]:
    """Where and how a secret is sent; a secret must not move to another place."""
    if server.credential_mode == CredentialMode.CLIENT_CREDENTIALS and credential:
        kind = ("oauth", credential.client_id)
        return (*kind, url_origin(credential.token_url))
    return (server.credential_mode, url_origin(server.url))


def save_new(
    server: UpstreamServer,
    credential: UpstreamCredential | None,
    secret: str,
    *,
    actor: Any,
    request: Any = None,
    via: str = "",
) -> None:
    """Save a server that was checked, with its credential, and record it."""
    with transaction.atomic():
        server.save()
        UpstreamStatus.objects.get_or_create(upstream=server)
        if credential is not None:
            save_credential(server, credential, secret)
        record(
            "upstream.added",
            actor=actor,
            request=request,
            object=server,
            changes=shown_fields(server, credential),
            via=via,
        )


def save_credential(
    server: UpstreamServer, credential: UpstreamCredential, secret: str
) -> None:
    """Save it; with a new secret, what was fetched by the old one is forgotten."""
    credential.upstream = server
    if secret:
        set_secret(credential, secret)
        return
    credential.version += 1
    credential.save()


def shown_fields(
    server: UpstreamServer, credential: UpstreamCredential | None
) -> dict[str, Any]:
    """[None, value] of the fields that decide what is contacted, for the audit."""
    names = ("url", "prefix", "credential_mode", "new_definitions")
    fields = {name: [None, getattr(server, name)] for name in names}
    if credential is not None:
        fields["secret"] = ["(hidden)", "(hidden)"]
    return fields


def remove(
    servers: Iterable[UpstreamServer], *, actor: Any, request: Any = None
) -> int:
    """Delete servers, their primitives and credentials; counts the primitives."""
    count = 0
    with transaction.atomic():
        for server in servers:
            count += Primitive.objects.filter(upstream=server).count()
            record("upstream.deleted", actor=actor, request=request, object=server)
            server.delete()
    return count
