"""HostOriginMiddleware: check Host, Origin and Content-Length before authentication.

MCP Streamable HTTP, Security: a foreign Origin gets 403, a foreign Host 421.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import split_domain_port, validate_host
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_bridge.http.headers import header
from mcp_bridge.http.responses import Response, json_error, too_large


def origin_pattern(allowed: Iterable[str]) -> re.Pattern[str]:
    """One pattern for `scheme://host[:port]` entries; `:*` allows any port or none."""
    own = urlsplit(settings.ISSUER_URL)
    entries = [f"{own.scheme}://{own.netloc}", *allowed]
    parts = [
        re.escape(e.removesuffix(":*")) + (r"(?::\d+)?" if e.endswith(":*") else "")
        for e in entries
    ]
    return re.compile("|".join(parts), re.IGNORECASE)


class HostOriginMiddleware:
    """Pure ASGI: 421 for a foreign Host, 403 for a foreign Origin, 413 by size."""

    def __init__(self, app: ASGIApp, cors_app: ASGIApp) -> None:
        self.app, self.cors_app = app, cors_app
        self.origins = origin_pattern(settings.ALLOWED_ORIGINS)
        self.hosts = tuple(settings.ALLOWED_HOSTS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass requests of web pages through CORS, all others to the app."""
        origin = header(scope, b"origin")
        refusal = self.refusal(scope, origin)
        if refusal is not None:
            await refusal.send(send)
        elif origin is None:
            await self.app(scope, receive, send)
        else:
            await self.cors_app(scope, receive, send)

    def refusal(self, scope: Scope, origin: str | None) -> Response | None:
        """The refusal of this request; None if it may pass."""
        if not allowed_host(header(scope, b"host") or "", self.hosts):
            return json_error(421, "invalid_host", "This host is not in ALLOWED_HOSTS.")
        if origin and not self.origins.fullmatch(origin):
            return json_error(
                403, "invalid_origin", "This origin is not in ALLOWED_ORIGINS."
            )
        declared = header(scope, b"content-length") or "0"
        if declared.isdigit() and int(declared) > settings.MAX_BODY_SIZE:
            return too_large()
        return None


@lru_cache(maxsize=256)
def allowed_host(host: str, allowed: tuple[str, ...]) -> bool:
    """Whether ALLOWED_HOSTS has the host of this header."""
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, allowed)
