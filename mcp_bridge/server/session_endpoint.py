"""What clients with sessions send, other than requests: the 2025 protocols at /mcp.

MCP 2025-11-25 basic/transports. Requests in a session go to `direct_dispatch.py`. Every
other message, and every refusal, comes here, on whichever worker it arrives.
"""

from __future__ import annotations

from mcp.server.connection import Connection
from mcp_types import INVALID_PARAMS, INVALID_REQUEST
from mcp_types.version import LATEST_HANDSHAKE_VERSION
from starlette.types import Receive, Scope, Send

from mcp_bridge.access.context import Call, current_call
from mcp_bridge.cache.recheck import recheck_var
from mcp_bridge.http import responses
from mcp_bridge.http.headers import header
from mcp_bridge.server.direct_dispatch import (
    JSON,
    Content,
    DirectDispatcher,
    accepts_both,
    accepts_stream,
    is_request,
    response_head,
    single_context,
)
from mcp_bridge.sessions.registry import OpenSession, SessionRegistry
from mcp_bridge.sessions.sealed_ids import new_facts
from mcp_bridge.sessions.streams import resumption, serve_stream

SESSION = b"mcp-session-id"


class SessionEndpoint:
    """Pure ASGI: opens and ends sessions, serves their streams and notifications."""

    def __init__(self, direct: DirectDispatcher, sessions: SessionRegistry) -> None:
        self.direct, self.sessions = direct, sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the current call."""
        call = current_call()
        if call is None:
            raise RuntimeError("A message of a session was not decided.")
        problem = problem_of_head(scope)
        if problem is None and scope["method"] == "POST":
            await self.post(scope, receive, send, call)
            return
        problem = problem or problem_of_session(scope, call.session)
        if problem is not None:
            await problem.send(send)
        elif scope["method"] == "DELETE":
            await self.sessions.end(call.session)
            await empty(200).send(send)
        else:
            await self.stream(scope, receive, send, call.session)

    async def post(
        self, scope: Scope, receive: Receive, send: Send, call: Call
    ) -> None:
        """Open a session, or serve a message of one that is no request."""
        content, named = call.message.content, header(scope, SESSION)
        if call.message.method == "initialize" and is_request(content):
            if named is None or call.session is not None:
                await self.open(scope, receive, send, call)
                return
        problem = problem_of_session(scope, call.session) or problem_of_body(content)
        if problem is not None:
            await problem.send(send)
            return
        await empty(202).send(send)
        await self.sessions.observe(call.session, content)
        if "method" in content:
            connection = call.session.connection
            context = single_context(scope, receive, content)
            await self.direct.notify(connection, context, content)

    async def open(
        self, scope: Scope, receive: Receive, send: Send, call: Call
    ) -> None:
        """Answer `initialize`; the session is open before its client learns the id."""
        content = call.message.content
        connection = Connection.from_envelope(LATEST_HANDSHAKE_VERSION, None, None)
        context = single_context(scope, receive, content)
        status, body = await self.direct.run(connection, context, content)
        session = None
        if connection.client_params is not None:
            version, params = connection.protocol_version, connection.client_params
            facts = new_facts(call.principal, version, params)
            session = await self.sessions.open(facts)
        await send(response_head(status, len(body), session))
        await send({"type": "http.response.body", "body": body})

    async def stream(
        self, scope: Scope, receive: Receive, send: Send, session: OpenSession
    ) -> None:
        """Resume the response that Last-Event-ID names, or open the client's stream."""
        last = header(scope, b"last-event-id") or ""
        resumed = await resumption(session, last, recheck_var.get())
        if resumed is not None:
            await resumed.serve(receive, send)
        else:
            await serve_stream(scope, session, receive, send)


def problem_of_head(scope: Scope) -> responses.Response | None:
    """Why the method or the headers cannot be served; None if they can."""
    method, accept = scope["method"], header(scope, b"accept") or ""
    if method not in ("GET", "POST", "DELETE"):
        refused = responses.protocol_error(405, INVALID_REQUEST, "Method Not Allowed")
        return responses.Response(405, refused.body, {"allow": "GET, POST, DELETE"})
    if method == "GET" and not accepts_stream(accept):
        text = "Not Acceptable: Client must accept text/event-stream"
        return responses.protocol_error(406, INVALID_REQUEST, text)
    if method != "POST":
        return None
    if not (header(scope, b"content-type") or "").lower().startswith(JSON):
        text = "Invalid Content-Type header"
        return responses.protocol_error(400, INVALID_REQUEST, text)
    if not accepts_both(accept):
        text = "Not Acceptable: Client must accept both application/json and "
        text += "text/event-stream"
        return responses.protocol_error(406, INVALID_REQUEST, text)
    return None


def problem_of_session(
    scope: Scope, session: OpenSession | None
) -> responses.Response | None:
    """400 without a session id; 404 for one that is not the caller's live session."""
    if session is not None:
        return None
    if header(scope, SESSION) is None:
        text = "Bad Request: Missing session ID"
        return responses.protocol_error(400, INVALID_REQUEST, text)
    return responses.protocol_error(404, INVALID_REQUEST, "Session not found")


def problem_of_body(content: Content) -> responses.Response | None:
    """400 for a message whose members have wrong types."""
    error = content.get("error")
    malformed = ("method" in content) and "id" in content  # requests went elsewhere
    malformed |= not isinstance(content.get("params", {}), dict)
    malformed |= not isinstance(content.get("result", {}), dict)
    malformed |= error is not None and not isinstance(error, dict)
    if not malformed:
        return None
    text = "Validation error: this is no message of JSON-RPC 2.0 and MCP."
    return responses.protocol_error(400, INVALID_PARAMS, text)


def empty(status: int) -> responses.Response:
    """A response without a body."""
    return responses.Response(status)
