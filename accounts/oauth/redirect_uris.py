"""Validation of redirect URIs, and the redirect with `iss`.

OAuth 2.1 2.3.1, 8.4; RFC 8252 7; RFC 9207 2.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

from django.conf import settings
from django.utils.translation import gettext as _

from accounts.errors import InvalidRedirectURI
from accounts.parsing.host_names import canonical_host
from accounts.parsing.text import one_line
from accounts.parsing.urls import split_url

MAX_URI_LENGTH = 2_000
MAX_SCHEME_LENGTH = 100
"""Characters; pages show the whole scheme and a consent stores it."""
HOST = re.compile(r"[a-z0-9_.-]+|[0-9a-f:.]+", re.ASCII)
"""A host name or an address, without characters that a browser decodes."""
USER_INFO = re.compile(r"[^:/?]+://[^/?]*@")
"""The start of a URI with a user name or password."""


def validate_redirect_uri(uri: Any) -> str:
    """Return `uri` if it may receive codes (OAuth 2.1 2.3.1).

    Every way to register a client, and the authorization endpoint, use this function:
    what one accepts, the other does. Raises InvalidRedirectURI.
    """
    if not isinstance(uri, str) or not 0 < len(uri) <= MAX_URI_LENGTH:
        raise InvalidRedirectURI(_("Each redirect URI must be a string."))
    shown = one_line(uri, 80)
    if any(c.isspace() or not c.isprintable() for c in uri) or "#" in uri:
        raise InvalidRedirectURI(_("%s contains a space or a fragment.") % shown)
    if "*" in uri or USER_INFO.match(uri):
        raise InvalidRedirectURI(
            _("Redirect URIs cannot contain usernames or wildcards.")
        )
    # Browsers read a backslash as a slash, and other alphabets have letters that look
    # Latin: the consent page would show another host than the redirect's.
    parts = split_url(uri)
    if parts is None:
        raise InvalidRedirectURI(_("%s is not a URI.") % shown)
    if not scheme_allowed(parts.scheme, parts.hostname):
        text = _(
            "%s: use https, http on a loopback address, a scheme with a dot, or one of "
            "the setting REDIRECT_SCHEMES."
        )
        raise InvalidRedirectURI(text % shown)
    return uri


def scheme_allowed(scheme: str, host: str | None) -> bool:
    """Whether it is https, http to a loopback host, or a private-use scheme."""
    if scheme == "https":
        return bool(host and HOST.fullmatch(host))
    if scheme == "http":
        return is_loopback(host)
    return scheme in settings.REDIRECT_SCHEMES or (
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


def response_uri(redirect_uri: str, parameters: Iterable[tuple[str, str]]) -> str:
    """The redirect with these parameters and exactly one `iss` (RFC 9207 2).

    The client's own query stays as the client wrote it (RFC 6749 3.1.2).
    """
    base, _mark, query = redirect_uri.partition("?")
    own = "&".join(part for part in query.split("&") if not is_issuer(part))
    added = [pair for pair in parameters if pair[0] != "iss"]
    text = urlencode([*added, ("iss", settings.ISSUER_URL)])
    return f"{base}?{own}&{text}" if own else f"{base}?{text}"


def is_issuer(part: str) -> bool:
    """Whether `name=value` of a query is an `iss` parameter."""
    return unquote_plus(part.partition("=")[0]) == "iss"


def added_parameters(redirect_uri: str, uri: str) -> list[tuple[str, str]]:
    """The parameters that oauthlib and the toolkit appended to `redirect_uri`.

    Both decode the client's own query and encode it again, so `uri` is of no use.
    """
    own, all_ = (
        [pair for pair in parse_qsl(urlsplit(one).query, True) if pair[0] != "iss"]
        for one in (redirect_uri, uri)
    )
    return all_[len(own) :]
