"""URLs that programs, forms and files send, split without exceptions (RFC 3986)."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from oauthlib.uri_validate import is_absolute_uri


def split_url(text: str) -> SplitResult | None:
    """Split an absolute URL; None for any other text, and for one with a fragment.

    `urlsplit` alone raises ValueError for some text, also later when the port is read.
    oauthlib compares redirect URIs with the grammar of RFC 3986, so this does, too.
    """
    try:
        parts = urlsplit(text)
        _port = parts.port
        if "[" in parts.netloc:
            ipaddress.IPv6Address(parts.hostname or "")
    except ValueError:
        return None
    # The grammar's pattern ends before a final line break.
    return parts if text.isprintable() and is_absolute_uri(text) else None
