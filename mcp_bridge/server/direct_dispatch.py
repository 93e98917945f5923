"""Direct dispatch: one request, one JSON response, without the SDK's own HTTP entry.

MCP basic/transports. The middleware has parsed the body already. The SDK's entry parses
it again and validates the result with one more model (2026-07-28: a fifth of a call).
For older protocols it creates streams, and without a session a dispatcher and a task
(two thirds of a call).

Well-formed requests go straight to the SDK's dispatch. Everything else goes to the
SDK's entry, which has the error messages: contradicting or duplicate headers,
notifications, mirrored arguments.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import anyio
from mcp.server.connection import Connection
from mcp.server.lowlevel.server import Server
from mcp.server.runner import ServerRunner, aclose_shielded, modern_error_data
from mcp.server.streamable_http import check_accept_headers
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PARAM_HEADER_PREFIX,
    MCP_PROTOCOL_VERSION_HEADER,
    InboundModernRoute,
    classify_inbound_request,
)
from mcp.shared.jsonrpc_dispatcher import (
    handler_exception_to_error_data,
    progress_token_from_params,
)
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types import (
    DEFAULT_NEGOTIATED_VERSION,
    ErrorData,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCResponse,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from pydantic_core import PydanticSerializationError, to_json
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_bridge.access.context import current_call
from mcp_bridge.http.headers import header, header_pairs
from mcp_bridge.sessions.registry import OpenSession, encoded_message

logger = logging.getLogger(__name__)

JSON = "application/json"
MIRROR = MCP_PARAM_HEADER_PREFIX.lower().encode()
ROUTING = tuple(
    (name, name.encode())
    for name in (MCP_PROTOCOL_VERSION_HEADER, MCP_METHOD_HEADER, MCP_NAME_HEADER)
)
"""Headers that the SDK compares with the body, as text and as the scope has them."""

Content = Mapping[str, Any]
"""A decoded JSON-RPC message."""


@dataclass(slots=True)
class SingleResponseContext:
    """The SDK's DispatchContext where only the result can be sent."""

    transport: TransportContext
    request_id: str | int
    message_metadata: ServerMessageMetadata
    progress_token: str | int | None = None
    can_send_request: bool = False
    cancel_requested: anyio.Event = field(default_factory=anyio.Event)

    async def send_raw_request(
        self, method: str, params: Content | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Raises NoBackChannelError: the client opened no stream for requests."""
        raise NoBackChannelError(method)

    async def notify(
        self, method: str, params: Content | None, opts: CallOptions | None = None
    ) -> None:
        """Drop the notification: the client opened no stream for it."""

    async def progress(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        """Drop the progress: the client opened no stream for it."""


@dataclass(slots=True)
class SessionContext(SingleResponseContext):
    """The same within a session: a message before the result opens a stream."""

    session: OpenSession | None = None
    push: Callable[[bytes], Awaitable[None]] | None = None
    """Sends one message before the result."""
    can_send_request: bool = True

    async def send_raw_request(
        self, method: str, params: Content | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Ask the client. Raises MCPError with its error."""
        if self.session is None:
            raise NoBackChannelError(method)

        async def ask(number: str) -> None:
            await self.send(method, params, id=number)

        return await self.session.answer_to(ask)

    async def notify(
        self, method: str, params: Content | None, opts: CallOptions | None = None
    ) -> None:
        """Send the notification before the result."""
        await self.send(method, params)

    async def progress(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        """Send the progress if the client asked for it."""
        if self.progress_token is None:
            return
        told = {"progress": progress, "total": total, "message": message}
        known = {name: value for name, value in told.items() if value is not None}
        params = {"progressToken": self.progress_token, **known}
        await self.send("notifications/progress", params)

    async def send(self, method: str, params: Content | None, **head: str) -> None:
        """Send a request or notification."""
        if self.push is not None:
            await self.push(encoded_message(method, params, **head))


class DirectDispatcher:
    """Serves requests without the SDK's streams; `sdk` is the SDK's ASGI entry."""

    def __init__(self, server: Server[Any], sdk: ASGIApp) -> None:
        self.server, self.sdk = server, sdk
        self.lifespan_state: Any = None

    async def serve(
        self, scope: Scope, receive: Receive, send: Send, content: Content
    ) -> None:
        """Answer the request; `content` is its decoded body."""
        route = self.route(scope, content)
        if route is None:
            await self.sdk(scope, receive, send)
            return
        session = current_session()
        if session is not None:
            context = self.session_context(scope, receive, send, content, session)
            status, body = await self.run(session.connection, context, content)
        else:
            status, body = await self.run_alone(route, scope, receive, content)
        await send(response_head(status, len(body), session))
        await send({"type": "http.response.body", "body": body})

    async def run_alone(
        self,
        route: InboundModernRoute,
        scope: Scope,
        receive: Receive,
        content: Content,
    ) -> tuple[int, bytes]:
        """As `run`, for a request without a session."""
        identity = route.client_info, route.client_capabilities
        connection = Connection.from_envelope(route.protocol_version, *identity)
        try:
            context = single_context(scope, receive, content)
            return await self.run(connection, context, content)
        finally:
            # An empty stack needs no aclose_shielded(): its scope costs 8 us.
            if getattr(connection.exit_stack, "_exit_callbacks", True):
                await aclose_shielded(connection)

    async def run(
        self, connection: Connection, context: SingleResponseContext, content: Content
    ) -> tuple[int, bytes]:
        """The HTTP status and the JSON-RPC response."""
        runner = ServerRunner(self.server, connection, self.lifespan_state)
        try:
            method, params = content["method"], content.get("params")
            result = await runner.on_request(context, method, params)
            return 200, encode_result(content["id"], result)
        except Exception as problem:
            modern = is_modern(connection.protocol_version)
            error = (modern_error_data if modern else older_error_data)(problem)
            failed = JSONRPCError(jsonrpc="2.0", id=content["id"], error=error)
            status = ERROR_CODE_HTTP_STATUS.get(error.code, 200) if modern else 200
            return status, dump_message(failed)

    async def notify(
        self, connection: Connection, context: SingleResponseContext, content: Content
    ) -> None:
        """Let the SDK handle a notification."""
        runner = ServerRunner(self.server, connection, self.lifespan_state)
        await runner.on_notify(context, content["method"], content.get("params"))

    def session_context(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        content: Content,
        session: OpenSession,
    ) -> SingleResponseContext:
        """The context of a request in a session; `send` may be able to push."""
        single = single_context(scope, receive, content)
        push = getattr(send, "push", None)
        if push is None:
            return single
        detach = getattr(send, "detach", None)
        return SessionContext(
            replace(single.transport, can_send_request=True),
            single.request_id,
            replace(single.message_metadata, close_sse_stream=detach),
            progress_token_from_params(content.get("params")),
            session=session,
            push=push,
        )

    def serves_in_session(self, scope: Scope, content: Content) -> bool:
        """Whether it is a well-formed request of a session that the caller has."""
        accept = header(scope, b"accept") or ""
        if current_session() is None or not accepts_both(accept):
            return False
        return self.route(scope, content) is not None

    def route(self, scope: Scope, content: Content) -> InboundModernRoute | None:
        """The envelope of a well-formed request; None sends it to the SDK's entry."""
        pairs = header_pairs(scope)
        well_formed = (
            len(pairs.first) == len(pairs)
            and (header(scope, b"content-type") or "").lower().startswith(JSON)
            and accepts_json(header(scope, b"accept") or "")
            and is_request(content)
        )
        headers = {
            name: pairs.first[key].decode("latin-1")
            for name, key in ROUTING
            if key in pairs.first
        }
        version = headers.get(MCP_PROTOCOL_VERSION_HEADER, DEFAULT_NEGOTIATED_VERSION)
        if not well_formed or version in HANDSHAKE_PROTOCOL_VERSIONS:
            older = well_formed and content["method"] != "initialize"
            return InboundModernRoute(version, None, None) if older else None
        if self.has_mirrored_arguments(pairs.first, content):
            return None
        route = classify_inbound_request(content, headers=headers)
        return route if isinstance(route, InboundModernRoute) else None

    def has_mirrored_arguments(
        self, headers: Mapping[bytes, bytes], content: Content
    ) -> bool:
        """Whether headers repeat, or must repeat, arguments of a tool (SEP-2243)."""
        if content["method"] != "tools/call":
            return False
        params = content.get("params") or {}
        schema_of, arguments = (
            self.server.get_tool_input_schema,
            params.get("arguments"),
        )
        if schema_of is None or any(name.startswith(MIRROR) for name in headers):
            return True
        return bool(arguments) and schema_of(str(params.get("name"))) is not None


def current_session() -> OpenSession | None:
    """The session of the message that is being served."""
    call = current_call()
    found: OpenSession | None = None if call is None else call.session
    return found


def single_context(
    scope: Scope, receive: Receive, content: Content
) -> SingleResponseContext:
    """The context of a request whose only answer is its result."""
    request, pairs = Request(scope, receive), scope["headers"]
    headers = request.headers
    scope["headers"] = pairs  # Starlette has replaced them by a list without index.
    return SingleResponseContext(
        TransportContext(
            kind="streamable-http", can_send_request=False, headers=headers
        ),
        content.get("id"),  # type: ignore[arg-type]
        ServerMessageMetadata(request_context=request),
    )


def response_head(
    status: int, length: int, session: OpenSession | None
) -> dict[str, Any]:
    """The start of a JSON response; it names the session, as the SDK's does."""
    headers = [
        (b"content-length", str(length).encode()),
        (b"content-type", JSON.encode()),
    ]
    if session is not None:
        headers.append((b"mcp-session-id", session.id.encode()))
    return {"type": "http.response.start", "status": status, "headers": headers}


def is_modern(version: str) -> bool:
    """Whether the protocol version has no handshake."""
    return version in MODERN_PROTOCOL_VERSIONS


def older_error_data(problem: Exception) -> ErrorData:
    """The error of the older protocols, as the SDK's dispatcher sends it."""
    error = handler_exception_to_error_data(problem)
    if error is None:
        logger.error("A request failed", exc_info=problem)
        error = ErrorData(code=0, message=str(problem))
    return error


def is_request(content: Content) -> bool:
    """Whether the message is a JSON-RPC 2.0 request; `parse` has checked the rest."""
    known = type(content.get("id")) in (str, int) and "method" in content
    return known and isinstance(content.get("params", {}), dict)


@lru_cache(maxsize=256)
def accepts_both(accept: str) -> bool:
    """Whether the SDK accepts this Accept header within a session."""
    headers = [(b"accept", accept.encode("latin-1"))]
    return all(check_accept_headers(Request({"type": "http", "headers": headers})))


@lru_cache(maxsize=256)
def accepts_stream(accept: str) -> bool:
    """Whether the SDK accepts this Accept header for a stream."""
    headers = [(b"accept", accept.encode("latin-1"))]
    return check_accept_headers(Request({"type": "http", "headers": headers}))[1]


@lru_cache(maxsize=256)
def accepts_json(accept: str) -> bool:
    """Whether the SDK accepts this Accept header for a JSON response."""
    headers = [(b"accept", accept.encode("latin-1"))]
    return check_accept_headers(Request({"type": "http", "headers": headers}))[0]


def encode_result(request_id: str | int, result: dict[str, Any]) -> bytes:
    """The result as JSON-RPC bytes. Raises what the SDK's serialization raises."""
    answer = {"jsonrpc": "2.0", "id": request_id, "result": result}
    try:
        return to_json(answer, inf_nan_mode="null")
    except PydanticSerializationError:  # a lone surrogate
        return dump_message(
            JSONRPCResponse(jsonrpc="2.0", id=request_id, result=result)
        )


def dump_message(
    message: JSONRPCResponse | JSONRPCError | JSONRPCNotification,
) -> bytes:
    """The same bytes as the SDK's own transport sends."""
    body = message.model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(body, separators=(",", ":")).encode()
