"""Sessions: limited by user and in total, and owned by their person."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mcp.server.auth.middleware.bearer_auth import authorization_context

from mcp_bridge.access.catalogue import Catalogue
from mcp_bridge.access.context import Call, call_var
from mcp_bridge.access.decision import Decision, Reason
from mcp_bridge.access.messages import Message
from mcp_bridge.metrics import prometheus
from mcp_bridge.middleware.authorization import Caller
from mcp_bridge.server import sessions as sessions_module
from mcp_bridge.server.portico_server import PorticoServer, require_decision
from mcp_bridge.server.sessions import BoundedSessions, owner_id
from tests.support.asgi import Client, chunk, http_scope, run
from tests.support.mcp_in_process import (
    JSON_TYPES,
    McpInProcess,
    authorized,
    caller,
    message,
)

pytestmark = pytest.mark.once
INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "tests", "version": "1"},
}


class Sessions:
    """The session manager, opened and used by people 1, 2 and so on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ended: list[str] = []
        self.closed: list[str] = []
        """Sessions whose sessions at upstream servers were closed."""
        self.open = 0
        monkeypatch.setattr(
            sessions_module, "close_sessions_of_client", self.closed.append
        )
        monkeypatch.setattr(prometheus, "count_limit_exceeded", self.ended.append)
        monkeypatch.setattr(prometheus, "set_open_sessions", self.set_open)

    def set_open(self, count: int) -> None:
        self.open = count

    def story(self, tell: Any) -> None:
        async def told() -> None:
            server = PorticoServer("sessions")
            self.manager = BoundedSessions(server._lowlevel_server)
            async with self.manager.run():
                await tell(self)

        run(told())

    async def send(
        self, user: int, method: str, session: str = "", body: bytes = b"", **more: Any
    ) -> Client:
        """One request to the manager, as the middleware passes it on."""
        principal = caller(f"user-{user}", user_id=user, jti=f"jti-{user}")
        headers = {**JSON_TYPES, **({"mcp-session-id": session} if session else {})}
        scope = http_scope(more.get("http", "POST"), headers=headers)
        scope["user"] = Caller(principal)
        scope["headers"] += more.get("pairs", [])
        call = Call(
            principal, Message(method), Catalogue(), Decision(True, Reason.OPEN_METHOD)
        )
        token, client = call_var.set(call), Client([chunk(body)])
        try:
            await self.manager.handle_request(scope, client.receive, client.send)
        finally:
            call_var.reset(token)
        return client

    async def opened(self, user: int) -> str:
        """The id of a new session."""
        reply = await self.send(
            user, "initialize", body=message("initialize", **INITIALIZE)
        )
        assert reply.status == 200
        return reply.headers["mcp-session-id"]

    async def exists(self, user: int, session: str) -> bool:
        reply = await self.send(user, "ping", session, message("ping"))
        assert reply.status in (200, 404)
        return reply.status == 200

    def counted(self) -> dict[str, list[str]]:
        return {user: list(mine) for user, mine in self.manager.by_user.items()}


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Sessions:
    settings.MAX_SESSIONS_PER_USER, settings.MAX_SESSIONS = 2, 3
    return Sessions(monkeypatch)


def test_one_session_too_many_ends_the_users_least_recently_used(
    sessions: Sessions,
) -> None:
    async def tell(s: Sessions) -> None:
        other = await s.opened(2)
        first, second = await s.opened(1), await s.opened(1)
        assert await s.exists(1, first), "now the second is the least recently used"
        third = await s.opened(1)
        assert not await s.exists(1, second) and second in s.closed
        assert await s.exists(1, first) and await s.exists(1, third)
        assert await s.exists(2, other)
        assert s.counted() == {"1": [first, third], "2": [other]}
        assert (s.ended, s.open) == (["sessions"], 3)

    sessions.story(tell)


def test_in_total_the_user_with_most_sessions_loses_one(sessions: Sessions) -> None:
    async def tell(s: Sessions) -> None:
        first, second = await s.opened(1), await s.opened(1)
        other = await s.opened(2)
        new = await s.opened(3)
        assert not await s.exists(1, first)
        assert s.counted() == {"1": [second], "2": [other], "3": [new]}
        assert (s.ended, s.open) == (["sessions"], 3)

    sessions.story(tell)


def test_within_the_limits_nothing_ends(sessions: Sessions) -> None:
    async def tell(s: Sessions) -> None:
        for user in (1, 1, 2):
            await s.opened(user)
        assert (s.ended, s.open, len(s.manager._server_instances)) == ([], 3, 3)

    sessions.story(tell)


def test_a_request_that_opens_no_session_ends_none(sessions: Sessions) -> None:
    """Only `initialize` opens one; the SDK refuses others and forgets them."""

    async def tell(s: Sessions) -> None:
        mine = [await s.opened(1) for _ in range(2)]
        for _ in range(3):
            reply = await s.send(1, "tools/list", body=message("tools/list"))
            assert reply.status == 400
        assert s.counted() == {"1": mine} and s.ended == []

    sessions.story(tell)


def test_a_session_is_unknown_to_others(sessions: Sessions) -> None:
    """They cannot tell it from one that does not exist, nor keep it alive."""

    async def tell(s: Sessions) -> None:
        mine = await s.opened(1)
        assert not await s.exists(2, mine)
        assert await s.exists(1, mine) and not await s.exists(1, "0" * 32)

    sessions.story(tell)


def test_a_session_that_its_client_ended_no_longer_counts(sessions: Sessions) -> None:
    async def tell(s: Sessions) -> None:
        first, second = await s.opened(1), await s.opened(1)
        assert (await s.send(1, "session/end", first, http="DELETE")).status == 200
        assert s.counted() == {"1": [second]} and s.open == 1
        assert (await s.send(1, "session/end", second, http="DELETE")).status == 200
        assert (s.counted(), s.open, s.ended) == ({}, 0, [])
        assert {first, second} == set(s.closed)

    sessions.story(tell)


def test_sessions_end_after_their_idle_time(sessions: Sessions, settings: Any) -> None:
    settings.SESSION_IDLE = 0.01

    async def tell(s: Sessions) -> None:
        await s.opened(1)
        async with asyncio.timeout(5):
            while s.manager._server_instances:
                await asyncio.sleep(0.005)
        assert (s.counted(), s.open) == ({}, 0) and s.closed

    sessions.story(tell)


@pytest.mark.parametrize("stateless", [False, True])
def test_a_request_to_resume_is_an_ordinary_one(
    monkeypatch: pytest.MonkeyPatch, stateless: bool
) -> None:
    """Without an event store the SDK would never answer it."""
    seen: list[Any] = []

    async def served(self: Any, scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["headers"])

    monkeypatch.setattr(
        "mcp.server.streamable_http_manager.StreamableHTTPSessionManager.handle_request",
        served,
    )
    server = PorticoServer("sessions")
    manager = BoundedSessions(server._lowlevel_server, stateless=stateless)
    scope = http_scope("GET", headers={"a": "1", "last-event-id": "5", "b": "2"})
    run(manager.handle_request(scope, None, None))  # type: ignore[arg-type]
    assert seen == [[(b"a", b"1"), (b"b", b"2")]]
    assert len(scope["headers"]) == 3, "the scope is not changed"


def test_the_sdks_own_limit_is_off(settings: Any) -> None:
    """It would refuse new people because of one."""
    settings.SESSION_IDLE = 12.5
    manager = BoundedSessions(PorticoServer("sessions")._lowlevel_server)
    assert (manager.max_sessions, manager.session_idle_timeout) == (None, 12.5)


@pytest.mark.usefixtures("sessions")
def test_a_session_that_the_sdk_refuses_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "mcp.server.streamable_http_manager.StreamableHTTPSessionManager._admit_session",
        lambda self, requestor: None,
    )
    manager = BoundedSessions(PorticoServer("sessions")._lowlevel_server)
    assert manager._admit_session(None) is None and manager.by_user == {}


@pytest.mark.usefixtures("sessions")
def test_a_session_ends_also_while_the_server_stops() -> None:
    """No task is left that could terminate its transport."""
    manager = BoundedSessions(PorticoServer("sessions")._lowlevel_server)
    transport = manager._admit_session(None)
    assert transport is not None and transport.mcp_session_id is not None
    assert list(manager.by_user) == [""]
    manager.end(transport.mcp_session_id)
    assert (manager.by_user, manager._server_instances) == ({}, {})


def test_an_owner_is_its_user() -> None:
    context = authorization_context(Caller(caller(user_id=7)))
    assert (owner_id(context), owner_id(None)) == ("7", "")


def test_through_the_middleware_a_session_belongs_to_its_token(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """Every message of a session is decided again."""
    settings.MCP_SESSIONS = True
    server = PorticoServer("sessions", middleware=[require_decision])
    mcp = McpInProcess(monkeypatch, server)
    mcp.callers = {
        "alice": caller("alice", "Use"),
        "bob": caller("bob", "Use", user_id=2),
    }

    async def tell(app: Any) -> None:
        async def asked(token: str, body: bytes, **headers: str) -> Client:
            client = Client([chunk(body)])
            await app(authorized(token, headers=headers), client.receive, client.send)
            return client

        opened = await asked("alice", message("initialize", **INITIALIZE))
        session = opened.headers["mcp-session-id"]
        listed = message("tools/list")
        assert (await asked("alice", listed, mcp_session_id=session)).status == 200
        assert (await asked("bob", listed, mcp_session_id=session)).status == 404
        mcp.callers.pop("alice")
        assert (await asked("alice", listed, mcp_session_id=session)).status == 401

    mcp.story(tell)
