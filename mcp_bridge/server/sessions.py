"""Sessions of the 2025 protocols, limited by user and in total."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from django.conf import settings
from mcp.server.auth.middleware.bearer_auth import AuthorizationContext
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http import StreamableHTTPServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.types import Receive, Scope, Send

from mcp_bridge.access.context import current_call
from mcp_bridge.http.headers import header
from mcp_bridge.metrics import prometheus


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
        owner = self._session_owners.get(session_id or "")
        if session_id and owner is not None:
            self.by_user[owner_id(owner)].move_to_end(session_id)
        await super()._handle_stateful_request(scope, receive, send)

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
        """Stop counting the session."""
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


def owner_id(owner: AuthorizationContext | None) -> str:
    """The user id of a session's owner; empty without an owner."""
    return str(owner["subject"]) if owner is not None else ""
