"""Validation of redirect URIs, and the redirect with `iss`.

OAuth 2.1 2.3.1, 8.4; RFC 8252 7; RFC 9207 2.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from django.conf import settings
from django.utils.translation import gettext as _

from accounts.errors import InvalidRedirectURI
from accounts.parsing.host_names import canonical_host
from accounts.parsing.text import one_line

MAX_URI_LENGTH = 2_000
MAX_SCHEME_LENGTH = 100
"""Characters; pages show the whole scheme and a consent stores it."""
HOST = re.compile(r"[a-z0-9_.-]+|[0-9a-f:.]+", re.ASCII)
"""A host name or an address, without characters that a browser decodes."""
PRIVATE_SCHEMES = ("cursor", "vscode", "vscode-insiders", "windsurf")
"""Schemes without a dot that well-known clients use; others need a reverse domain."""


def validate_redirect_uri(uri: Any) -> str:
    """Return `uri` if it may receive codes (OAuth 2.1 2.3.1).

    Raises InvalidRedirectURI.
    """
    if not isinstance(uri, str) or not 0 < len(uri) <= MAX_URI_LENGTH:
        raise InvalidRedirectURI(_("Each redirect URI must be a string."))
    shown = one_line(uri, 80)
    if any(c.isspace() or not c.isprintable() for c in uri) or "#" in uri:
        raise InvalidRedirectURI(_("%s contains a space or a fragment.") % shown)
    # Browsers read a backslash as a slash, and other alphabets have letters that look
    # Latin: the consent page would show another host than the redirect's.
    if "\\" in uri or not uri.isascii():
        raise InvalidRedirectURI(_("%s is not a URI.") % shown)
    try:
        parts = urlsplit(uri)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidRedirectURI(_("%s is not a URI.") % shown) from error
    if "@" in parts.netloc or "*" in uri:
        raise InvalidRedirectURI(
            _("Redirect URIs cannot contain usernames or wildcards.")
        )
    if not scheme_allowed(parts.scheme, host):
        text = _("%s: use https, http on a loopback address, or a scheme with a dot.")
        raise InvalidRedirectURI(text % shown)
    return uri


def scheme_allowed(scheme: str, host: str | None) -> bool:
    """Whether it is https, http to a loopback host, or a private-use scheme."""
    if scheme == "https":
        return bool(host and HOST.fullmatch(host))
    if scheme == "http":
        return is_loopback(host)
    return scheme in PRIVATE_SCHEMES or (
        "." in scheme and len(scheme) <= MAX_SCHEME_LENGTH
    )


def is_loopback(host: str | None) -> bool:
    """Whether it is localhost, in 127.0.0.0/8, or ::1."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def host_of(uri: str) -> str:
    """The host of an http(s) URI, else the scheme with a colon.

    The client chooses freely what follows a private-use scheme, so it is not a host.
    """
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and parts.hostname:
        return parts.hostname[:255]
    return f"{parts.scheme}:"


def is_interceptable(uri: str) -> bool:
    """Whether any program on the user's computer could receive it (RFC 8252 8.6)."""
    parts = urlsplit(uri)
    if parts.scheme != "https":
        return True
    try:
        host = canonical_host(parts.hostname or "")
    except ValueError:
        return True
    return is_loopback(host) or host.endswith(".localhost")


def with_issuer(uri: str) -> str:
    """The redirect with exactly one `iss` parameter (RFC 9207 2)."""
    parts = urlsplit(uri)
    query = [(k, v) for k, v in parse_qsl(parts.query, True) if k != "iss"]
    query.append(("iss", settings.ISSUER_URL))
    return urlunsplit(parts._replace(query=urlencode(query)))
