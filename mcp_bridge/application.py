"""The ASGI application: /mcp goes to the MCP server, everything else to Django.

Django's handler has no lifespan and a mounted app's never runs, so the session manager
starts here. Scope types other than http and lifespan are refused.
"""

from __future__ import annotations

import logging
import re
from contextlib import AsyncExitStack

from django.conf import settings
from django.db import Error as DatabaseError
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from accounts.admin_site.uploads import largest_upload, upload_paths
from accounts.authentication.mail import MAILER
from accounts.http.client_address import apply_forwarded
from accounts.models import SigningKey
from accounts.notifications.worker import WORKER
from mcp_bridge.audit.trail import last_used
from mcp_bridge.audit.writer import writing_audit
from mcp_bridge.cache.decision_cache import caching_decisions
from mcp_bridge.db import in_database
from mcp_bridge.http.descriptors import watching_descriptors
from mcp_bridge.http.headers import HeaderPairs, header
from mcp_bridge.http.host_origin import HostOriginMiddleware, origin_pattern
from mcp_bridge.http.request_body import BodyLimitMiddleware
from mcp_bridge.http.request_id import with_request_id
from mcp_bridge.http.shutdown import install_signal_handlers
from mcp_bridge.http.unread_body import discarding_unread
from mcp_bridge.middleware.authorization import AuthorizationMiddleware
from mcp_bridge.middleware.database_timeout import DatabaseTimeoutMiddleware
from mcp_bridge.middleware.rate_limits import count_message
from mcp_bridge.server.discovery import autodiscover, sync
from mcp_bridge.server.sampling import sampling
from mcp_bridge.server.transport import Transport
from mcp_bridge.upstreams.limits import COUNTING
from mcp_bridge.upstreams.schedule import discovering

logger = logging.getLogger(__name__)

MCP_PATHS = frozenset({"/mcp", "/mcp/"})
CORS_PATHS = re.compile(r"/\.well-known/|/oauth/(?:jwks\.json|token|register|revoke)\Z")
"""Paths that any web page may read or post to without cookies (OAuth 2.1 3.2)."""


class Application:
    """The ASGI application."""

    def __init__(self, django: ASGIApp) -> None:
        self.server = autodiscover()
        self.django = BodyLimitMiddleware(
            DatabaseTimeoutMiddleware(django), largest_body
        )
        self.public = CORSMiddleware(
            self.django,
            allow_origins=["*"],
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
        self.transport = Transport(self.server)
        COUNTING.count = count_message
        self.mcp = mcp_app(self.transport)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.lifespan(receive, send)
        elif scope["type"] == "http":
            await self.http(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Dispatch one request by its exact path."""
        given = scope
        scope, send = with_request_id(strip_header_values(apply_forwarded(scope)), send)
        # One list for the server and for us, so that a stream can free it.
        given["headers"] = scope["headers"]
        receive, send = discarding_unread(scope, receive, send)
        if scope["path"] in MCP_PATHS:
            await self.mcp(scope, receive, send)
        elif CORS_PATHS.match(scope["path"]):
            await self.public(scope, receive, send)
        else:
            await self.django(scope, receive, send)

    async def lifespan(self, receive: Receive, send: Send) -> None:
        """Sync the catalogue and run the session manager while the server runs."""
        async with AsyncExitStack() as stack:
            await receive()
            try:
                await in_database(sync)
                # Not at the first token: making a key takes long, in a transaction.
                await in_database(SigningKey.objects.ensure_active)
            except DatabaseError as error:
                await send(
                    {
                        "type": "lifespan.startup.failed",
                        "message": startup_remedy(error),
                    }
                )
                return
            install_signal_handlers()
            MAILER.start()
            stack.push_async_callback(in_database, MAILER.close)
            WORKER.start()
            stack.push_async_callback(in_database, WORKER.close)
            stack.push_async_callback(last_used.close)
            await stack.enter_async_context(watching_descriptors())
            await stack.enter_async_context(writing_audit())
            await stack.enter_async_context(caching_decisions())
            await stack.enter_async_context(self.transport.running())
            await stack.enter_async_context(discovering())
            await stack.enter_async_context(sampling())
            self.server.running = True
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.server.running = False
        await send({"type": "lifespan.shutdown.complete"})


async def largest_body(scope: Scope) -> int:
    """The largest body that Django reads from this request, in bytes."""
    least: int = settings.MAX_FORM_SIZE
    if scope["path"] not in upload_paths():
        return least
    cookies = header(scope, b"cookie") or ""
    return max(least, await in_database(largest_upload, cookies))


def startup_remedy(error: DatabaseError) -> str:
    """One sentence for the log if the database cannot be used at start."""
    detail = str(error).strip().splitlines()[0] if str(error).strip() else "no detail"
    return (
        f"The database is not ready ({detail}): start it, check DATABASE_URL, or "
        "run manage.py migrate."
    )


def mcp_app(transport: Transport) -> ASGIApp:
    """HostOriginMiddleware -> CORS (for web pages) -> AuthorizationMiddleware."""
    authorization = AuthorizationMiddleware(transport)
    cors = CORSMiddleware(
        authorization,
        allow_origin_regex=origin_pattern(settings.ALLOWED_ORIGINS).pattern,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=["WWW-Authenticate", "Mcp-Session-Id"],
    )
    return HostOriginMiddleware(authorization, cors)


def strip_header_values(scope: Scope) -> Scope:
    """Strip blanks from header values (RFC 9110 5.5), which httptools keeps."""
    pairs = [(name, value.strip(b" \t")) for name, value in scope["headers"]]
    scope["headers"] = HeaderPairs(pairs)
    return scope
