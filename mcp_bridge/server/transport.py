"""Which way a message is served: in one piece, or by the SDK's session managers.

An answer in one piece costs far less; it is given where the request asked for no
stream. MCP 2026-07-28 basic/transports. In older requests the server may ask and tell
without being asked: they get streams, unless nothing that serves them could do that.
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

from mcp_bridge.access.messages import Message
from mcp_bridge.http.headers import header
from mcp_bridge.server.direct_dispatch import DirectDispatcher
from mcp_bridge.server.portico_server import PorticoServer
from mcp_bridge.server.sessions import BoundedSessions

SILENT = frozenset(
    {
        "ping",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
    }
)
"""Methods whose handlers, the SDK's own, only answer."""
TRACING = "mcp.server._otel"
"""The SDK's module of the middleware that makes a span for every message."""


class Transport:
    """Which of the SDK's apps serves a message."""

    def __init__(self, server: PorticoServer) -> None:
        self.server = server
        unprotected = TransportSecuritySettings(enable_dns_rebinding_protection=False)
        self.sessions = BoundedSessions(
            server._lowlevel_server,
            stateless=not settings.MCP_SESSIONS,
            max_request_body_size=settings.MAX_BODY_SIZE,
            security_settings=unprotected,
        )
        self.single = StreamableHTTPSessionManager(
            server._lowlevel_server,
            json_response=True,
            stateless=True,
            security_settings=unprotected,
        )
        self.streaming: ASGIApp = self.sessions.handle_request
        # Past the SDK's own body limit: the door has read the body already.
        sdk: ASGIApp = self.single.asgi_app.app
        self.direct = DirectDispatcher(server._lowlevel_server, sdk)

    def wants_json(self, scope: Scope, message: Message) -> bool:
        """Whether the message asked for no stream and none could carry anything."""
        if message.streams or scope["method"] != "POST":
            return False
        version = header(scope, b"mcp-protocol-version")
        if version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS:
            return True
        return not settings.MCP_SESSIONS and self.cannot_stream(message)

    def cannot_stream(self, message: Message) -> bool:
        """Whether what serves the message has no way to say more than its answer.

        A tool that is hidden from the caller is as silent as one that does not exist.
        """
        if message.method != "tools/call" or message.target is None:
            return message.method in SILENT
        tool = self.server.tools.get_tool(message.target[1])
        return tool is None or not (tool.context_kwarg or tool.resolved_params)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve from here on."""
        leave_untraced(self.server)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.sessions.run())
            await stack.enter_async_context(self.single.run())
            self.direct.lifespan_state = self.single._lifespan_state
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
