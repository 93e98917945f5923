"""The SDK's session managers: one answers in one piece, one streams.

An answer in one piece costs a third less; it is given where the request asked for
no stream. MCP 2026-07-28 basic/transports; older requests always get streams, because
in them the server may ask and tell without being asked.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from django.conf import settings
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from opentelemetry.trace import ProxyTracerProvider, get_tracer_provider
from starlette.types import ASGIApp, Scope

from mcp_bridge.edge import header
from mcp_bridge.exchange import Exchange
from mcp_bridge.messages import Message
from mcp_bridge.server import PorticoServer

TRACING = "mcp.server._otel"
"""The SDK's module of the middleware that makes a span for every message."""


class Transport:
    """Which of the SDK's apps serves a message."""

    def __init__(self, server: PorticoServer) -> None:
        self.server = server
        unprotected = TransportSecuritySettings(enable_dns_rebinding_protection=False)
        server.streamable_http_app(
            stateless_http=not settings.MCP_SESSIONS,
            max_request_body_size=settings.MAX_BODY_SIZE,
            transport_security=unprotected,
        )
        self.single = StreamableHTTPSessionManager(
            server._lowlevel_server,
            json_response=True,
            stateless=True,
            security_settings=unprotected,
        )
        self.streaming: ASGIApp = server.session_manager.handle_request
        # Past the SDK's own body limit: the door has read the body already.
        sdk: ASGIApp = self.single.asgi_app.app
        self.exchange = Exchange(server._lowlevel_server, sdk)

    def one_piece(self, scope: Scope, message: Message) -> bool:
        """Whether the message is of the new era and asked for no stream."""
        if message.streams or scope["method"] != "POST":
            return False
        version = header(scope, b"mcp-protocol-version")
        return version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve from here on."""
        leave_untraced(self.server)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.server.session_manager.run())
            await stack.enter_async_context(self.single.run())
            self.exchange.lifespan_state = self.single._lifespan_state
            settle_memory()
            yield
        gc.unfreeze()


def leave_untraced(server: PorticoServer) -> None:
    """Take the SDK's spans off every message's way where nobody receives them.

    They stay where a tracer provider is set up by the time the server starts.
    """
    if isinstance(get_tracer_provider(), ProxyTracerProvider):
        kept = [m for m in server.middleware if type(m).__module__ != TRACING]
        server.middleware[:] = kept


def settle_memory() -> None:
    """Keep what is there at start out of every later garbage collection."""
    gc.collect()
    gc.freeze()
