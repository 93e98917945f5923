"""Opening and ending sessions, and everything in them that is no request."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest
from mcp_types import NotificationParams

from mcp_bridge.cache.recheck import recheck_var
from mcp_bridge.metrics import prometheus
from mcp_bridge.server import session_endpoint
from mcp_bridge.server.session_endpoint import problem_of_body, problem_of_head
from mcp_bridge.sessions import registry
from mcp_bridge.sessions.sealed_ids import open_facts
from tests.mcp_bridge.server.test_session_requests import (
    INITIALIZE,
    Requests,
    cancelled,
    log,
    server,
)
from tests.mcp_bridge.sessions.test_streams import gone
from tests.support.asgi import http_scope, run
from tests.support.mcp_in_process import called, caller, message, until

pytestmark = pytest.mark.once


@pytest.fixture
def mcp(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Requests:
    settings.MCP_SESSIONS = True
    found = Requests(monkeypatch, server)
    found.callers = {
        "alice": caller("alice", "Use"),
        "again": caller("again", "Use"),
        "another client": caller("else", "Use", client_id="another"),
        "bob": caller("bob", "Use", user_id=2),
    }
    return found


def note(method: str, **params: Any) -> bytes:
    """A notification."""
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode()


def key_of(session: str) -> str:
    facts = open_facts(session)
    assert facts is not None
    return facts.key


def test_initialize_opens_a_session_with_what_it_agreed(mcp: Requests) -> None:
    async def story() -> None:
        asks = {**INITIALIZE, "capabilities": {"sampling": {}}}
        reply = await mcp.ask("alice", message("initialize", **asks))
        assert reply.status == 200 and reply.json["id"] == 7
        assert reply.json["result"]["protocolVersion"] == "2025-06-18"
        facts = open_facts(reply.headers["mcp-session-id"])
        assert facts is not None and facts.belongs_to(caller())
        assert (facts.version, facts.capabilities) == ("2025-06-18", {"sampling": {}})
        assert facts.client == ("tests", "1") and set(mcp.rows.expiring) == {facts.key}

    mcp.tell(story)


@pytest.mark.parametrize("params", [{}, {"protocolVersion": 3}])
def test_a_wrong_initialize_opens_none(mcp: Requests, params: dict[str, Any]) -> None:
    async def story() -> None:
        reply = await mcp.ask("alice", message("initialize", **params))
        assert reply.status == 200 and reply.json["error"]["code"] == -32602
        assert "mcp-session-id" not in reply.headers and mcp.rows.expiring == {}

    mcp.tell(story)


def test_initialize_in_a_session_opens_another(mcp: Requests) -> None:
    async def story() -> None:
        session = await mcp.opened("alice")
        reply = await mcp.ask("alice", message("initialize", **INITIALIZE), session)
        assert reply.headers["mcp-session-id"] != session and reply.status == 200
        for who, wrong in (("bob", session), ("alice", "0" * 32)):
            reply = await mcp.ask(who, message("initialize", **INITIALIZE), wrong)
            assert reply.status == 404

    mcp.tell(story)


@pytest.mark.parametrize(
    ("method", "body", "headers", "status"),
    [
        ("POST", note("notifications/initialized"), {}, 202),
        ("POST", note("notifications/unknown"), {}, 202),
        ("POST", cancelled("nothing"), {}, 202),
        ("POST", b'{"jsonrpc":"2.0","id":1,"result":{}}', {}, 202),
        ("POST", b'{"jsonrpc":"2.0","id":1,"result":[]}', {}, 400),
        ("POST", b'{"jsonrpc":"2.0","id":1,"error":3}', {}, 400),
        ("POST", b'{"jsonrpc":"2.0","method":"x","params":[1]}', {}, 400),
        ("POST", b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}', {}, 400),
        ("POST", note("x"), {"accept": "application/json"}, 406),
        ("POST", note("x"), {"content_type": "text/plain"}, 400),
        ("GET", b"", {"accept": "application/json"}, 406),
        ("DELETE", b"", {}, 200),
        ("PUT", b"", {}, 405),
    ],
)
def test_messages_of_a_session_are_taken_or_refused(
    mcp: Requests, method: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    async def story() -> None:
        session = await mcp.opened("alice")
        reply = await mcp.ask("alice", body, session, method=method, **headers)
        assert reply.status == status
        if status == 405:
            assert reply.headers["allow"] == "GET, POST, DELETE"
        if status >= 400:
            assert reply.json["id"] is None and reply.json["error"]["message"]

    mcp.tell(story)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_ids_that_are_not_live_ones_of_the_caller_are_404(
    mcp: Requests, method: str
) -> None:
    """Ended, expired, foreign, forged and altered: all the same answer."""

    async def story() -> None:
        mine, ended, expired = [await mcp.opened("alice") for _ in range(3)]
        foreign = await mcp.opened("bob")
        await mcp.ask("alice", b"", ended, method="DELETE")
        mcp.rows.expiring[key_of(expired)] = 1.0
        mcp.app.transport.sessions.heard("")
        altered = ("A" if mine[0] != "A" else "B") + mine[1:]
        ids = ended, expired, foreign, altered, mine[:-1], "0" * 32, "x" * 5000
        replies = [await mcp.ask("alice", note("x"), i, method=method) for i in ids]
        stolen = await mcp.ask("another client", note("x"), mine, method=method)
        found = {(reply.status, reply.body) for reply in (*replies, stolen)}
        ((status, body),) = found
        assert status == 404 and b"Session not found" in body
        missing = await mcp.ask("alice", note("x"), method=method)
        assert missing.status == 400
        reply = await mcp.ask("again", message("ping"), mine)
        assert reply.status == 200, "any token of the person and the client"

    mcp.tell(story)


def test_another_worker_serves_the_session(mcp: Requests) -> None:
    """A worker that has never seen the id reads one row, once."""

    async def story() -> None:
        session = await mcp.opened("alice")
        mcp.app.transport.sessions.forget(mcp.app.transport.sessions.known[session])
        assert mcp.app.transport.sessions.known == {}
        for _ in range(3):
            reply = await mcp.ask("alice", called("add", a=1, b=2), session)
            assert reply.json["result"]["structuredContent"] == {"result": 3}
        assert mcp.rows.reads == 1
        mcp.rows.ended_elsewhere(key_of(session))
        assert (await mcp.ask("alice", message("ping"), session)).status == 404

    mcp.tell(story)


def test_the_end_at_another_worker_ends_calls_and_streams(mcp: Requests) -> None:
    async def story() -> None:
        session = await mcp.opened("alice")
        call = mcp.begin("alice", called("waits"), session)
        stream = mcp.begin("alice", b"", session, method="GET")
        await until(lambda: log == ["began"] and stream.sent)
        mcp.rows.ended_elsewhere(key_of(session))
        for reply in (call, stream):
            await reply.task  # type: ignore[attr-defined]
        assert call.status == 404 and log == ["began", "cancelled"]
        assert stream.status == 200 and not stream.sent[-1].get("more_body", False)
        assert mcp.app.transport.sessions.busy == set()

    mcp.tell(story)


def test_one_session_too_many_ends_another_at_once(
    mcp: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    monkeypatch.setattr(prometheus, "count_limit_exceeded", counted.append)

    async def story() -> None:
        first = await mcp.opened("alice")
        mcp.rows.surplus = [key_of(first)]
        second = await mcp.opened("alice")
        assert (await mcp.ask("alice", message("ping"), first)).status == 404
        assert (await mcp.ask("alice", message("ping"), second)).status == 200
        assert counted == ["sessions"]

    mcp.tell(story)


def test_a_newer_stream_replaces_the_older_one(mcp: Requests) -> None:
    async def story() -> None:
        session = await mcp.opened("alice")
        older = mcp.begin("alice", b"", session, method="GET")
        await until(lambda: older.sent)
        newer = mcp.begin("alice", b"", session, method="GET")
        await older.task  # type: ignore[attr-defined]
        await until(lambda: newer.sent)
        assert not older.sent[-1].get("more_body", False)
        told = mcp.app.transport.sessions.known[session]
        await told.connection.notify("notifications/resources/updated", {"uri": "a:b"})
        await until(lambda: b"resources/updated" in newer.body)
        assert newer.headers["mcp-session-id"] == session
        await gone(newer)
        assert told.stream is None

    mcp.tell(story)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("last", ["a/7", ""])
def test_a_stream_resumes_the_response_that_it_names(
    monkeypatch: pytest.MonkeyPatch, last: str, known: bool
) -> None:
    done: list[Any] = []

    class Response:
        async def serve(self, receive: Any, send: Any) -> None:
            done.append("resumed")

    async def resumption(session: Any, event_id: str, recheck: Any) -> Any:
        done.append((session, event_id, recheck))
        return Response() if known else None

    async def serve_stream(scope: Any, session: Any, receive: Any, send: Any) -> None:
        done.append(f"opened for {session}")

    monkeypatch.setattr(session_endpoint, "resumption", resumption)
    monkeypatch.setattr(session_endpoint, "serve_stream", serve_stream)
    given: Any = {"last-event-id": last} if last else {}
    endpoint: Any = session_endpoint.SessionEndpoint(cast(Any, None), cast(Any, None))

    async def story() -> None:
        recheck_var.set(cast(Any, "a recheck"))
        await endpoint.stream(http_scope("GET", headers=given), None, None, "alice")

    run(story())
    end = "resumed" if known else "opened for alice"
    assert done == [("alice", last, "a recheck"), end]


def test_notifications_of_a_session_reach_their_handler(mcp: Requests) -> None:
    heard: list[Any] = []

    class Params(NotificationParams):
        number: int = 0

    async def handler(ctx: Any, params: Params) -> None:
        heard.append((ctx.method, params.number))

    async def story() -> None:
        session = await mcp.opened("alice")
        body = note("notifications/initialized", number=3)
        assert (await mcp.ask("alice", body, session)).status == 202
        answer = b'{"jsonrpc":"2.0","id":1,"result":{}}'
        assert (await mcp.ask("alice", answer, session)).status == 202

    handlers = server._lowlevel_server._notification_handlers
    method = "notifications/initialized"
    server._lowlevel_server.add_notification_handler(method, Params, handler)
    try:
        mcp.tell(story)
    finally:
        del handlers[method]
    assert heard == [(method, 3)]


def test_what_is_told_before_the_stream_opens_comes_with_it(mcp: Requests) -> None:
    async def story() -> None:
        session = await mcp.opened("alice")
        told = mcp.app.transport.sessions.known[session]
        await told.connection.notify("notifications/resources/updated", {"uri": "a:b"})
        stream = mcp.begin("alice", b"", session, method="GET")
        await until(lambda: b"resources/updated" in stream.body)
        await gone(stream)

    mcp.tell(story)


def test_the_server_asks_on_the_clients_stream(mcp: Requests) -> None:
    async def story() -> None:
        session = await mcp.opened("alice")
        stream = mcp.begin("alice", b"", session, method="GET")
        await until(lambda: stream.sent)
        told = mcp.app.transport.sessions.known[session]
        ask, params = told.connection.send_raw_request, {"message": "Sure?"}
        asking = asyncio.create_task(ask("elicitation/create", params))
        await until(lambda: b"portico-" in stream.body)
        line = next(x for x in stream.body.splitlines() if b"portico-" in x)
        question = json.loads(line[6:])
        number = question.pop("id")
        sent = {"jsonrpc": "2.0", "method": "elicitation/create", "params": params}
        assert question == sent
        answer = {"jsonrpc": "2.0", "id": number, "result": {"ok": 1}}
        foreign = await mcp.opened("bob")
        await mcp.ask("bob", json.dumps(answer).encode(), foreign)
        assert not asking.done(), "another session cannot answer"
        await mcp.ask("alice", json.dumps(answer).encode(), session)
        assert await asking == {"ok": 1}
        await gone(stream)

    mcp.tell(story)


def test_a_known_session_is_forgotten_over_the_limit(
    mcp: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs one read to serve it again."""
    monkeypatch.setattr(registry, "MAX_KNOWN", 2)

    async def story() -> None:
        sessions = [await mcp.opened("alice") for _ in range(3)]
        assert list(mcp.app.transport.sessions.known) == sessions[1:]
        assert (await mcp.ask("alice", message("ping"), sessions[0])).status == 200

    mcp.tell(story)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("HEAD", {}, 405),
        ("OPTIONS", {}, 405),
        ("GET", {}, 406),
        ("GET", {"accept": "application/json"}, 406),
        ("GET", {"accept": "text/event-stream"}, None),
        ("DELETE", {}, None),
        ("POST", {"accept": "*/*", "content-type": "APPLICATION/JSON"}, None),
        ("POST", {"accept": "*/*"}, 400),
        ("POST", {"accept": "text/event-stream"}, 400),
        ("POST", {"content-type": "application/json"}, 406),
    ],
)
def test_the_head_of_a_message_is_checked(
    method: str, headers: dict[str, str], status: int | None
) -> None:
    problem = problem_of_head(http_scope(method, headers=headers))
    assert (problem and problem.status) == status


@pytest.mark.parametrize(
    "content",
    [
        {"id": 1.5, "method": "ping"},
        {"id": None, "method": "ping"},
        {"method": "x", "params": [1]},
        {"id": 1, "result": []},
        {"id": 1, "error": "no"},
    ],
)
def test_members_of_wrong_types_are_refused(content: dict[str, Any]) -> None:
    """Well-formed requests went elsewhere."""
    problem = problem_of_body(content)
    assert problem is not None and problem.status == 400
    assert problem_of_body({"method": "x"}) is None
    assert problem_of_body({"id": 1, "error": {}}) is None
