"""Sessions of the 2025 protocols, limited by user and in total.

Requests that need no stream are answered outside the SDK's streams
(`direct_dispatch.py`). `LiveSession` is all they need of a session.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from django.conf import settings
from mcp.server.auth.middleware.bearer_auth import AuthorizationContext
from mcp.server.connection import Connection
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http import (
    REQUEST_CANCELLED,
    StreamableHTTPServerTransport,
)
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.dispatcher import coerce_request_id
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR, ErrorData, JSONRPCError
from starlette.types import Receive, Scope, Send

from accounts.tokens.principal import Principal
from mcp_bridge.access.context import current_call
from mcp_bridge.access.messages import Message
from mcp_bridge.http.headers import header
from mcp_bridge.metrics import prometheus
from mcp_bridge.upstreams.exchange import close_sessions_of_client

RequestId = str | int
Cancel = Callable[[int, bytes], None]
"""Cancels a request; it is answered with this HTTP status and body."""

_question_ids = itertools.count(1)


@dataclass(frozen=True, slots=True)
class LiveSession:
    """A session that is open and belongs to the caller."""

    id: str
    connection: Connection
    """What `initialize` agreed: the protocol version and the client's capabilities."""
    transport: StreamableHTTPServerTransport
    sessions: BoundedSessions

    @contextmanager
    def in_use(self, request_id: RequestId, cancel: Cancel) -> Iterator[None]:
        """Keep the session from being idle; its client may cancel the request."""
        running = self.sessions.running
        mine = running.setdefault(self.id, {})
        mine[key := coerce_request_id(request_id)] = cancel
        self.sessions.used(self.id)
        count_request(self.transport, 1)
        try:
            yield
        finally:
            count_request(self.transport, -1)
            if mine.get(key) is cancel:
                del mine[key]
            if not mine and running.get(self.id) is mine:
                del running[self.id]

    async def answer_to(self, ask: Callable[[str], Awaitable[None]]) -> dict[str, Any]:
        """The client's answer to a request that `ask` sends under the id it gets.

        Raises MCPError with the client's error, or if the session ends.
        """
        questions = self.sessions.questions
        key = self.id, f"portico-{next(_question_ids)}"
        question: asyncio.Future[dict[str, Any]]
        questions[key] = question = asyncio.get_running_loop().create_future()
        try:
            await ask(key[1])
            return await question
        finally:
            del questions[key]


class BoundedSessions(StreamableHTTPSessionManager):
    """The SDK's session manager; a user over the limit loses the least recently used.

    The SDK has one limit for all users and refuses new sessions past it. One user could
    keep every other user out for half an hour.
    """

    def __init__(self, app: Server[Any], **options: Any) -> None:
        idle = settings.SESSION_IDLE
        super().__init__(app, session_idle_timeout=idle, max_sessions=None, **options)
        self.by_user: dict[str, OrderedDict[str, None]] = {}
        """User id -> the user's session ids, the most recently used last."""
        self.connections: dict[str, Connection] = {}
        self.running: dict[str, dict[RequestId, Cancel]] = {}
        """Session id -> its requests that are being answered outside the streams."""
        self.questions: dict[tuple[str, str], asyncio.Future[dict[str, Any]]] = {}
        """(session id, request id) -> the client's answer to a request of ours."""
        if not self.stateless:
            app.middleware.append(self.remember_connection)

    async def remember_connection(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """The SDK's middleware: keep the connection that `initialize` opens."""
        if ctx.method == "initialize":
            connection = ctx.session._connection
            if connection.session_id in self._server_instances:
                self.connections[connection.session_id] = connection
        return await call_next(ctx)

    def live(self, scope: Scope) -> LiveSession | None:
        """The caller's session that the request names; None if there is none."""
        session_id = header(scope, b"mcp-session-id") or ""
        connection = self.connections.get(session_id)
        transport = self._server_instances.get(session_id)
        call = current_call()
        if connection is None or transport is None or call is None:
            return None
        if self._session_owners.get(session_id) != owner_of(call.principal):
            return None
        idle = transport.idle_scope
        ending = transport.is_terminated or (idle is not None and idle.cancel_called)
        if ending or not connection.initialize_accepted:
            return None
        return LiveSession(session_id, connection, transport, self)

    def observe(self, session: LiveSession, message: Message) -> None:
        """Apply a cancellation, or the answer to a question, that the client sent."""
        if message.method == "notifications/cancelled":
            params = message.content.get("params")
            found = params.get("requestId") if isinstance(params, dict) else None
            if isinstance(found, str | int) and not isinstance(found, bool):
                self.cancel(session.id, found)
        elif message.method == "response":
            key = session.id, str(message.content.get("id"))
            question = self.questions.get(key)
            if question is not None and not question.done():
                settle(question, message.content)

    def cancel(self, session_id: str, request_id: RequestId) -> None:
        """Cancel a request of the session; unknown ones are ignored."""
        cancel = self.running.get(session_id, {}).get(coerce_request_id(request_id))
        if cancel is not None:
            cancel(200, failure(request_id, REQUEST_CANCELLED, "Request cancelled"))

    async def handle_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve without Last-Event-ID.

        Without an event store the SDK never answers a request to resume.
        """
        heads = [pair for pair in scope["headers"] if pair[0] != b"last-event-id"]
        await super().handle_request({**scope, "headers": heads}, receive, send)

    async def _handle_stateful_request(
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        session_id = header(scope, b"mcp-session-id")
        self.used(session_id or "")
        session, call = self.live(scope), current_call()
        if session is not None and call is not None:
            self.observe(session, call.message)
        await super()._handle_stateful_request(scope, receive, send)

    def used(self, session_id: str) -> None:
        """Make the session the user's most recently used one."""
        owner = self._session_owners.get(session_id)
        if owner is not None:
            self.by_user[owner_id(owner)].move_to_end(session_id)

    def _admit_session(
        self, requestor: AuthorizationContext | None
    ) -> StreamableHTTPServerTransport | None:
        call = current_call()
        if call is not None and call.message.method == "initialize":
            self.make_room(owner_id(requestor))
        transport = super()._admit_session(requestor)
        if transport is not None and transport.mcp_session_id is not None:
            mine = self.by_user.setdefault(owner_id(requestor), OrderedDict())
            mine[transport.mcp_session_id] = None
            prometheus.set_open_sessions(len(self._server_instances))
        return transport

    def make_room(self, user_id: str) -> None:
        """End the user's least recently used session, or one of the user with most."""
        mine = self.by_user.get(user_id, ())
        if len(mine) >= settings.MAX_SESSIONS_PER_USER:
            self.end(next(iter(mine)))
        elif len(self._server_instances) >= settings.MAX_SESSIONS:
            most = max(self.by_user.values(), key=len)
            self.end(next(iter(most)))

    def end(self, session_id: str) -> None:
        """Remove the session now; a task then terminates its transport."""
        prometheus.count_limit_exceeded("sessions")
        transport = self._server_instances[session_id]
        self.forget(session_id)
        self._server_instances.pop(session_id)
        self._session_owners.pop(session_id, None)
        if self._task_group is not None:
            self._task_group.start_soon(self._discard_session, session_id, transport)

    def forget(self, session_id: str) -> None:
        """Stop counting the session, and end its requests outside the streams."""
        self.connections.pop(session_id, None)
        close_sessions_of_client(session_id)
        for request_id, cancel in list(self.running.pop(session_id, {}).items()):
            text = "Session terminated before the request completed"
            cancel(404, failure(request_id, INTERNAL_ERROR, text))
        for key, question in self.questions.items():
            if key[0] == session_id and not question.done():
                error = MCPError(CONNECTION_CLOSED, "Connection closed")
                question.set_exception(error)
        user_id = owner_id(self._session_owners.get(session_id))
        mine = self.by_user.get(user_id, OrderedDict())
        mine.pop(session_id, None)
        if not mine:
            self.by_user.pop(user_id, None)

    async def _discard_session(
        self, session_id: str, transport: StreamableHTTPServerTransport
    ) -> None:
        self.forget(session_id)
        await super()._discard_session(session_id, transport)
        prometheus.set_open_sessions(len(self._server_instances))


def settle(
    question: asyncio.Future[dict[str, Any]], content: Mapping[str, Any]
) -> None:
    """Set the result or the error that the client sent."""
    result, error = content.get("result"), content.get("error")
    if isinstance(result, dict):
        question.set_result(result)
        return
    error = error if isinstance(error, dict) else {}
    code, data = error.get("code"), error.get("data")
    code = code if type(code) is int else INTERNAL_ERROR
    question.set_exception(MCPError(code, str(error.get("message", "")), data=data))


def count_request(transport: StreamableHTTPServerTransport, step: int) -> None:
    """Count a request in flight as the SDK does; without one, the idle time runs."""
    idle, timeout = transport.idle_scope, transport._idle_timeout
    if idle is None or timeout is None:
        return
    transport._requests_in_flight += step
    in_flight = transport._requests_in_flight
    idle.deadline = math.inf if in_flight else anyio.current_time() + timeout


def failure(request_id: RequestId, code: int, text: str) -> bytes:
    """A JSON-RPC error as bytes."""
    error = ErrorData(code=code, message=text)
    message = JSONRPCError(jsonrpc="2.0", id=request_id, error=error)
    return message.model_dump_json(by_alias=True, exclude_unset=True).encode()


def owner_of(principal: Principal) -> AuthorizationContext:
    """The owner of a session that this principal opens, as the SDK names it."""
    return AuthorizationContext(
        client_id=principal.client_id,
        issuer=settings.ISSUER_URL,
        subject=str(principal.user_id),
    )


def owner_id(owner: AuthorizationContext | None) -> str:
    """The user id of a session's owner; empty without an owner."""
    return str(owner["subject"]) if owner is not None else ""
