"""Transport: choose direct dispatch or the SDK's session managers for a message.

MCP 2026-07-28 basic/transports. A single JSON response costs far less than a stream, so
requests that asked for no stream get one. In a session of the older protocols, what is
sent before the result turns the response into a stream. Without sessions, their
requests get streams, unless no handler of theirs could send anything but the result.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from django.conf import settings
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.inbound import InboundModernRoute
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from opentelemetry.trace import ProxyTracerProvider, get_tracer_provider
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_bridge.access.catalogue import Key
from mcp_bridge.access.context import Call, current_call
from mcp_bridge.access.messages import Message
from mcp_bridge.cache.recheck import Recheck
from mcp_bridge.http import responses
from mcp_bridge.http.headers import header
from mcp_bridge.models import PrimitiveKind
from mcp_bridge.server.concurrency_limits import STREAM_METHODS
from mcp_bridge.server.direct_dispatch import (
    DirectDispatcher,
    accepts_both,
    is_modern,
    response_head,
)
from mcp_bridge.server.portico_server import PorticoServer
from mcp_bridge.server.session_endpoint import SESSION, SessionEndpoint
from mcp_bridge.server.subscriptions import (
    Listening,
    ListWatch,
    listening_var,
    send_changes,
)
from mcp_bridge.sessions.registry import SessionRegistry
from mcp_bridge.upstreams.relay import relayed_rule

RESULT_ONLY_METHODS = frozenset(
    {
        "ping",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "completion/complete",
    }
)
"""Methods whose handlers, the SDK's own and completers, send only the result."""
TARGETED_METHODS = frozenset({"tools/call", "prompts/get", "resources/read"})
"""Methods whose handler is the function of a primitive."""
TRACING = "mcp.server._otel"
"""The SDK's module with the middleware that starts a span for every message."""


class Transport:
    """Chooses the SDK's app that serves a message."""

    def __init__(self, server: PorticoServer) -> None:
        self.server = server
        unprotected = TransportSecuritySettings(enable_dns_rebinding_protection=False)
        self.sessions = SessionRegistry()
        self.streams, self.single = (
            StreamableHTTPSessionManager(
                server._lowlevel_server,
                json_response=single,
                stateless=True,
                max_request_body_size=settings.MAX_BODY_SIZE,
                security_settings=unprotected,
            )
            for single in (False, True)
        )
        # Without the SDK's own body limit: the body has been read already.
        sdk: ASGIApp = self.single.asgi_app.app
        self.direct = DirectDispatcher(server._lowlevel_server, sdk)
        self.endpoint = SessionEndpoint(self.direct, self.sessions)

    async def streaming(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a message that is not answered by one JSON response.

        Without sessions a GET would open a stream that can carry nothing. The SDK would
        name GET and DELETE in the answer to other methods.
        """
        if in_sessions(scope):
            await self.endpoint(scope, receive, send)
        elif scope["method"] != "POST" and not settings.MCP_SESSIONS:
            await responses.method_not_allowed().send(send)
        elif not await self.listens(scope, receive, send):
            await self.streams.handle_request(scope, receive, send)

    async def listens(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Serve a well-formed `subscriptions/listen`; False if it is none."""
        call = current_call()
        route = None if call is None else self.route_of_listening(scope, call)
        if call is None or route is None:
            return False
        listening = Listening()
        token = listening_var.set(listening)
        try:
            content = call.message.content
            status, body = await self.direct.run_alone(route, scope, receive, content)
        finally:
            listening_var.reset(token)
        if listening.leave is None:
            await send(response_head(status, len(body), None))
            await send({"type": "http.response.body", "body": body})
        else:
            del content
            call.message = replace(call.message, content={})
            await listening.serve(scope, receive, send, body)
        return True

    def route_of_listening(self, scope: Scope, call: Call) -> InboundModernRoute | None:
        """The envelope of a well-formed `subscriptions/listen`."""
        accept = header(scope, b"accept") or ""
        if call.message.method != "subscriptions/listen" or not accepts_both(accept):
            return None
        route = self.direct.route(scope, call.message.content)
        return route if route and is_modern(route.protocol_version) else None

    async def find_session(self, scope: Scope, call: Call) -> None:
        """Set the call's session, if the message names a live one of the caller."""
        named = header(scope, SESSION) if in_sessions(scope) else None
        if named is not None:
            call.session = await self.sessions.find(named, call.principal)

    def wants_json(self, scope: Scope, message: Message) -> bool:
        """Whether the request asked for no stream and no handler could use one."""
        if scope["method"] != "POST":
            return False
        if message.streams and not in_sessions(scope):
            return False
        if not is_older(scope):
            return True
        if settings.MCP_SESSIONS:
            return self.direct.serves_in_session(scope, message.content)
        return self.cannot_stream(message)

    def list_changes(
        self, recheck: Recheck, send: Send
    ) -> Callable[[], Awaitable[None]] | None:
        """Tells an open stream of changed lists; None if it is not for that."""
        method = recheck.call.message.method
        if method not in STREAM_METHODS:
            return None
        watch = ListWatch(recheck.call)

        async def tell() -> None:
            if method == "subscriptions/listen":
                self.server.bus.tell_changes(watch, recheck)
            else:
                await send_changes(watch, send)

        return tell

    def cannot_stream(self, message: Message) -> bool:
        """Whether the handler can send nothing but its result.

        What is hidden from the caller counts as unknown. An upstream server can ask
        nobody without a session.
        """
        if message.method in RESULT_ONLY_METHODS:
            return True
        call = current_call()
        if message.target is None or message.method not in TARGETED_METHODS:
            return False
        relayed = call is not None and relayed_rule(call) is not None
        return relayed or not self.takes_context(message.target)

    def takes_context(self, target: Key) -> bool:
        """Whether a function of the code declares that it may ask, tell or log."""
        kind, name = target
        if kind == PrimitiveKind.TOOL:
            tool = self.server.tools.get_tool(name)
            return tool is not None and bool(tool.context_kwarg or tool.resolved_params)
        if kind == PrimitiveKind.PROMPT:
            prompt = self.server.prompts.get_prompt(name)
            return prompt is not None and bool(prompt.context_kwarg)
        if kind == PrimitiveKind.RESOURCE:
            return False  # it has no parameters
        templates = self.server.resources.all_templates()
        return any(t.uri_template == name and bool(t.context_kwarg) for t in templates)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the session managers until the server stops."""
        remove_unused_tracing(self.server)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.streams.run())
            await stack.enter_async_context(self.single.run())
            await stack.enter_async_context(self.sessions.serving())
            self.direct.lifespan_state = self.single._lifespan_state
            freeze_start_objects()
            yield
        gc.unfreeze()


def is_older(scope: Scope) -> bool:
    """Whether the request is of a protocol with a handshake."""
    version = header(scope, b"mcp-protocol-version")
    return version is None or version in HANDSHAKE_PROTOCOL_VERSIONS


def in_sessions(scope: Scope) -> bool:
    """Whether messages like this one belong to sessions."""
    return is_older(scope) and bool(settings.MCP_SESSIONS)


def remove_unused_tracing(server: PorticoServer) -> None:
    """Remove the SDK's tracing middleware if no tracer provider receives its spans.

    It stays if a tracer provider is set up before the server starts.
    """
    if isinstance(get_tracer_provider(), ProxyTracerProvider):
        others = [m for m in server.middleware if type(m).__module__ != TRACING]
        server.middleware[:] = others


def freeze_start_objects() -> None:
    """Exclude the objects that exist at start from later garbage collections."""
    gc.collect()
    gc.freeze()
