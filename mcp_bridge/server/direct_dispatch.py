"""One request, one answer, with the body parsed once, by the door.

MCP basic/transports. The SDK's own entries read the body a second time and take the
answer through one more model (2026-07-28: a fifth of a call), or make streams, a
dispatcher and a task for it (before, without sessions: two thirds). What is plainly
right goes from here to the SDK's dispatch. All else (a header that says otherwise or
comes twice, a notification, a mirrored argument) goes to the SDK's entry, which knows
what to say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    MCP_PARAM_HEADER_PREFIX,
    MCP_PROTOCOL_VERSION_HEADER,
    InboundModernRoute,
    classify_inbound_request,
)
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types import DEFAULT_NEGOTIATED_VERSION, JSONRPCError, JSONRPCResponse
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from pydantic_core import PydanticSerializationError, to_json
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

JSON = "application/json"
MIRROR = MCP_PARAM_HEADER_PREFIX.lower()

Content = Mapping[str, Any]
"""A decoded JSON-RPC message."""


@dataclass(slots=True)
class SingleResponseContext:
    """The SDK's DispatchContext where nothing but the answer can be sent."""

    transport: TransportContext
    request_id: str | int
    message_metadata: ServerMessageMetadata
    progress_token: None = None
    can_send_request: bool = False
    cancel_requested: anyio.Event = field(default_factory=anyio.Event)

    async def send_raw_request(
        self, method: str, params: Content | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """A server of this era asks nothing by itself."""
        raise NoBackChannelError(method)

    async def notify(
        self, method: str, params: Content | None, opts: CallOptions | None = None
    ) -> None:
        """The request asked for no stream."""

    async def progress(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        """The request asked for no stream."""


class DirectDispatcher:
    """Serves requests in one piece, without a session; `sdk` is the SDK's entry."""

    def __init__(self, server: Server[Any], sdk: ASGIApp) -> None:
        self.server, self.sdk = server, sdk
        self.lifespan_state: Any = None

    async def serve(
        self, scope: Scope, receive: Receive, send: Send, content: Content
    ) -> None:
        """Answer the request whose body was decoded to `content`."""
        route = self.route(scope, content)
        if route is None:
            await self.sdk(scope, receive, send)
            return
        identity = route.client_info, route.client_capabilities
        connection = Connection.from_envelope(route.protocol_version, *identity)
        request = Request(scope, receive)
        context = SingleResponseContext(
            TransportContext(
                kind="streamable-http", can_send_request=False, headers=request.headers
            ),
            content["id"],
            ServerMessageMetadata(request_context=request),
        )
        runner = ServerRunner(self.server, connection, self.lifespan_state)
        status = 200
        try:
            method, params = content["method"], content.get("params")
            result = await runner.on_request(context, method, params)
            body = encoded(content["id"], result)
        except Exception as problem:
            error = modern_error_data(problem)
            if route.protocol_version in MODERN_PROTOCOL_VERSIONS:
                status = ERROR_CODE_HTTP_STATUS.get(error.code, 200)
            failed = JSONRPCError(jsonrpc="2.0", id=content["id"], error=error)
            body = dumped(failed)
        finally:
            # Closing an empty stack needs no deadline of its own (8 us).
            if getattr(connection.exit_stack, "_exit_callbacks", True):
                await aclose_shielded(connection)
        length = (b"content-length", str(len(body)).encode())
        headers = [length, (b"content-type", JSON.encode())]
        head = {"type": "http.response.start", "status": status, "headers": headers}
        await send(head)
        await send({"type": "http.response.body", "body": body})

    def route(self, scope: Scope, content: Content) -> InboundModernRoute | None:
        """The envelope of a request that is plainly right; None for all else."""
        pairs = scope["headers"]
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in pairs}
        usual = (
            len(headers) == len(pairs)
            and headers.get("content-type", "").lower().startswith(JSON)
            and takes_json(headers.get("accept", ""))
            and is_request(content)
        )
        version = headers.get(MCP_PROTOCOL_VERSION_HEADER, DEFAULT_NEGOTIATED_VERSION)
        if not usual or version in HANDSHAKE_PROTOCOL_VERSIONS:
            older = usual and content["method"] != "initialize"
            return InboundModernRoute(version, None, None) if older else None
        if self.mirrors(headers, content):
            return None
        found = classify_inbound_request(content, headers=headers)
        return found if isinstance(found, InboundModernRoute) else None

    def mirrors(self, headers: Mapping[str, str], content: Content) -> bool:
        """Whether headers repeat, or should repeat, arguments of a tool (SEP-2243)."""
        if content["method"] != "tools/call":
            return False
        params = content.get("params") or {}
        look_up, arguments = self.server.get_tool_input_schema, params.get("arguments")
        if look_up is None or any(name.startswith(MIRROR) for name in headers):
            return True
        return bool(arguments) and look_up(str(params.get("name"))) is not None


def is_request(content: Content) -> bool:
    """Whether it is a request as JSON-RPC 2.0 words it, without a second look."""
    known = type(content.get("id")) in (str, int) and "method" in content
    return known and isinstance(content.get("params", {}), dict)


@lru_cache(maxsize=256)
def takes_json(accept: str) -> bool:
    """Whether the SDK finds JSON in this Accept header."""
    headers = [(b"accept", accept.encode("latin-1"))]
    return check_accept_headers(Request({"type": "http", "headers": headers}))[0]


def encoded(request_id: str | int, result: dict[str, Any]) -> bytes:
    """The answer as JSON. Raises what the SDK's own serialization raises."""
    answer = {"jsonrpc": "2.0", "id": request_id, "result": result}
    try:
        return to_json(answer, inf_nan_mode="null")
    except PydanticSerializationError:  # half of a surrogate pair
        return dumped(JSONRPCResponse(jsonrpc="2.0", id=request_id, result=result))


def dumped(message: JSONRPCResponse | JSONRPCError) -> bytes:
    """As the SDK does it."""
    body = message.model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(body, separators=(",", ":")).encode()
