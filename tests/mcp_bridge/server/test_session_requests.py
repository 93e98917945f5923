"""Requests of older clients' sessions that are answered without the SDK's streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from mcp.server.mcpserver import Context

from mcp_bridge.middleware import authorization
from mcp_bridge.server.portico_server import PorticoServer, require_decision
from mcp_bridge.server.transport import Transport
from tests.support.asgi import GONE, Client, chunk
from tests.support.mcp_in_process import (
    McpInProcess,
    authorized,
    called,
    caller,
    message,
    until,
)

pytestmark = pytest.mark.once
INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "tests", "version": "1"},
}
server = PorticoServer("requests", middleware=[require_decision])
log: list[str] = []
may_end = asyncio.Event()


@server.tool(scopes=["Use"])
async def add(a: int, b: int) -> int:
    """Sends only its result."""
    return a + b


@server.tool(scopes=["Use"])
async def breaks() -> str:
    raise ValueError("out of stock")


@server.tool(scopes=["Use"])
async def talks(context: Context[Any, Any]) -> str:
    """May send something before its result."""
    await context.report_progress(1, 2)
    return "said"


@server.tool(scopes=["Use"])
async def waits() -> str:
    log.append("began")
    try:
        await may_end.wait()
    except asyncio.CancelledError:
        log.append("cancelled")
        raise
    log.append("ended")
    return "done"


@server.resource("note://one", scopes=["Use"])
def one() -> str:
    return "the note"


@server.resource("note://of/{name}", scopes=["Use"])
def note(name: str) -> str:
    return f"the note of {name}"


@server.resource("talk://{name}", scopes=["Use"])
async def talk(name: str, context: Context[Any, Any]) -> str:
    return name


@server.prompt(scopes=["Use"])
def greet(name: str) -> str:
    return f"Greet {name}."


@server.completion()
async def complete(ref: Any, argument: Any, context: Any) -> None:
    return None


class Requests(McpInProcess):
    """People with sessions at the server above."""

    app: Any = None

    async def ask(
        self, who: str, body: bytes, session: str = "", **more: Any
    ) -> Client:
        client = self.begin(who, body, session, **more)
        await client.task  # type: ignore[attr-defined]
        return client

    def begin(self, who: str, body: bytes, session: str = "", **more: Any) -> Client:
        """A request in a task of its client."""
        method = more.pop("method", "POST")
        named = {"mcp_session_id": session} if session else {}
        client = Client([chunk(body)])
        scope = authorized(who, method, {**named, **more})
        work = self.app(scope, client.receive, client.send)
        client.task = asyncio.create_task(work)  # type: ignore[attr-defined]
        return client

    async def opened(self, who: str) -> str:
        reply = await self.ask(who, message("initialize", **INITIALIZE))
        return reply.headers["mcp-session-id"]

    def tell(self, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def told(app: Any) -> None:
            global may_end
            self.app, may_end = app, asyncio.Event()
            log.clear()
            await story()

        self.story(told)


@pytest.fixture
def mcp(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Requests:
    settings.MCP_SESSIONS = True
    found = Requests(monkeypatch, server)
    found.callers = {
        "alice": caller("alice", "Use"),
        "bob": caller("bob", "Use", user_id=2),
        "narrow": caller("narrow", user_id=3),
    }
    return found


def answer(reply: Client) -> Any:
    if reply.headers["content-type"].startswith("application/json"):
        return reply.json
    lines = [x[6:] for x in reply.body.splitlines() if x.startswith(b"data: ")]
    return json.loads(lines[-1])


def messages(reply: Client) -> list[Any]:
    """The messages of a stream."""
    lines = [x[6:] for x in reply.body.splitlines() if x.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line]


def kind(reply: Client) -> str:
    return reply.headers["content-type"].partition(";")[0]


JSON, STREAM = "application/json", "text/event-stream"
DIRECT = {
    "a call": called("add", a=1, b=2),
    "wrong arguments": called("add", a="x"),
    "a failing tool": called("breaks"),
    "an unknown tool": called("nothing"),
    "a hidden tool": called("hidden"),
    "tools": message("tools/list"),
    "resources": message("resources/list"),
    "templates": message("resources/templates/list"),
    "prompts": message("prompts/list"),
    "ping": message("ping"),
    "a resource": message("resources/read", uri="note://one"),
    "of a template": message("resources/read", uri="note://of/ann"),
    "no resource": message("resources/read", uri="note://two"),
    "a prompt": message("prompts/get", name="greet", arguments={"name": "Ann"}),
    "a prompt without arguments": message("prompts/get", name="greet"),
    "an unknown prompt": message("prompts/get", name="none"),
    "a completion": message(
        "completion/complete",
        ref={"type": "ref/prompt", "name": "greet"},
        argument={"name": "name", "value": "A"},
    ),
    "a cursor that is none": message("tools/list", cursor=3),
}


@pytest.mark.parametrize("name", DIRECT)
@pytest.mark.parametrize("who", ["alice", "narrow"])
def test_a_request_of_a_session_is_answered_as_by_the_sdk(
    mcp: Requests,
    monkeypatch: pytest.MonkeyPatch,
    settings: Any,
    name: str,
    who: str,
) -> None:
    """Status, message and audit are equal; only the stream is missing."""

    async def story() -> None:
        session = await mcp.opened(who)
        mcp.events.clear()
        ours = await mcp.ask(who, DIRECT[name], session)
        settings.MCP_SESSIONS = False
        monkeypatch.setattr(Transport, "wants_json", lambda *_: False)
        theirs = await mcp.ask(who, DIRECT[name])
        assert (kind(ours), kind(theirs)) == (JSON, STREAM)
        assert answer(ours) == answer(theirs) and ours.status == theirs.status == 200
        assert ours.headers["mcp-session-id"] == session
        first, second = mcp.events
        assert (first.action, first.outcome) == (second.action, second.outcome)

    mcp.tell(story)


def with_token(method: str, **params: Any) -> bytes:
    """A request that asks for progress."""
    return message(method, **params, _meta={"progressToken": "p"})


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        (called("talks"), "application/json"),
        (with_token("tools/call", name="talks", arguments={}), "text/event-stream"),
        (with_token("tools/list"), "application/json"),
        (message("no/such"), "application/json"),
    ],
)
def test_only_what_is_sent_before_the_result_opens_a_stream(
    mcp: Requests, body: bytes, shape: str
) -> None:
    async def story() -> None:
        session = await mcp.opened("alice")
        reply = await mcp.ask("alice", body, session)
        assert kind(reply) == shape
        assert reply.headers["mcp-session-id"] == session
        if shape == STREAM:
            told = {"progressToken": "p", "progress": 1.0, "total": 2.0}
            assert messages(reply)[0]["params"] == told
            assert messages(reply)[1]["result"]["content"][0]["text"] == "said"

    mcp.tell(story)


@pytest.mark.parametrize(
    ("session", "headers", "status"),
    [
        ("0" * 32, {}, 404),
        ("of bob", {}, 404),
        ("ended", {}, 404),
        ("", {}, 400),
        ("mine", {"accept": JSON}, 406),
        ("mine", {"accept": STREAM}, 406),
        ("mine", {"content_type": "text/plain"}, 400),
        ("mine", {"mcp_protocol_version": "2025-06-18"}, 200),
    ],
)
def test_a_request_that_the_sdk_refuses_is_refused(
    mcp: Requests, session: str, headers: dict[str, str], status: int
) -> None:
    async def story() -> None:
        ids = {"mine": await mcp.opened("alice"), "of bob": await mcp.opened("bob")}
        ids["ended"] = await mcp.opened("alice")
        await mcp.ask("alice", b"", ids["ended"], method="DELETE")
        name = ids.get(session, session)
        reply = await mcp.ask("alice", called("add", a=1, b=1), name, **headers)
        assert reply.status == status

    mcp.tell(story)


def cancelled(request_id: Any = 7) -> bytes:
    params = {"requestId": request_id}
    method = "notifications/cancelled"
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode()


def test_the_sessions_client_cancels_a_call(mcp: Requests) -> None:
    """MCP 2025-11-25 basic/utilities/cancellation. No other session can."""

    async def story() -> None:
        mine, other = await mcp.opened("alice"), await mcp.opened("alice")
        foreign = await mcp.opened("bob")
        mcp.events.clear()
        reply = mcp.begin("alice", called("waits"), mine)
        await until(lambda: log == ["began"])
        for who, session, wrong in (
            ("alice", other, 7),
            ("bob", foreign, 7),
            ("bob", mine, 7),
            ("alice", mine, 8),
            ("alice", mine, None),
            ("alice", mine, [7]),
        ):
            await mcp.ask(who, cancelled(wrong), session)
        assert log == ["began"] and reply.sent == []
        assert (await mcp.ask("alice", cancelled(), mine)).status == 202
        await reply.task  # type: ignore[attr-defined]
        assert log == ["began", "cancelled"] and reply.status == 200
        assert reply.json["error"]["code"] == -32800 and reply.json["id"] == 7
        calls = [e.outcome for e in mcp.events if e.object == "tool waits"]
        assert calls == ["cancelled"]
        assert mcp.app.transport.sessions.busy == set()

    mcp.tell(story)


def test_the_end_of_a_session_ends_its_calls(mcp: Requests) -> None:
    async def story() -> None:
        session = await mcp.opened("alice")
        reply = mcp.begin("alice", called("waits"), session)
        await until(lambda: log == ["began"])
        await mcp.ask("alice", b"", session, method="DELETE")
        await reply.task  # type: ignore[attr-defined]
        assert reply.status == 404 and log == ["began", "cancelled"]
        sessions = mcp.app.transport.sessions
        assert (sessions.busy, sessions.known, mcp.rows.expiring) == (set(), {}, {})

    mcp.tell(story)


@pytest.mark.parametrize("relayed", [False, True], ids=["code", "upstream"])
def test_a_disconnect_does_not_cancel_a_call_in_a_session(
    mcp: Requests, monkeypatch: pytest.MonkeyPatch, relayed: bool
) -> None:
    """MCP 2025-11-25 basic/transports: only the client's notification cancels.

    A call of an upstream server is cancelled: it costs others something.
    """
    monkeypatch.setattr("mcp_bridge.middleware.recorded_response.WATCH_AFTER", 0.001)
    rule = object() if relayed else None
    monkeypatch.setattr(authorization, "relayed_rule", lambda call: rule)

    async def story() -> None:
        session = await mcp.opened("alice")
        mcp.events.clear()
        reply = mcp.begin("alice", called("waits"), session)
        reply.events.append(GONE)
        await until(lambda: log and not reply.events)
        if not relayed:
            may_end.set()
        await reply.task  # type: ignore[attr-defined]
        assert log == ["began", "cancelled" if relayed else "ended"]
        outcomes = [event.outcome for event in mcp.events]
        assert outcomes == ["cancelled" if relayed else "ok"]

    mcp.tell(story)


def test_a_call_keeps_its_session_from_being_idle(mcp: Requests, settings: Any) -> None:
    settings.SESSION_IDLE = 0.2

    async def story() -> None:
        session = await mcp.opened("alice")
        reply = mcp.begin("alice", called("waits"), session)
        await asyncio.sleep(0.4)
        assert mcp.app.transport.sessions.known
        may_end.set()
        await reply.task  # type: ignore[attr-defined]
        assert answer(reply)["result"]["content"][0]["text"] == "done"
        assert (await mcp.ask("alice", message("ping"), session)).status == 200
        await until(lambda: not mcp.app.transport.sessions.known)
        assert (await mcp.ask("alice", message("ping"), session)).status == 404

    mcp.tell(story)
