"""Responses that break off and are resumed."""

from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.db import OperationalError

from mcp_bridge.access.messages import Message
from mcp_bridge.cache.recheck import FRESH_FOR
from mcp_bridge.http.event_stream import EventStream, sse_event
from mcp_bridge.http.headers import HeaderPairs
from mcp_bridge.sessions import streams
from mcp_bridge.sessions.message_log import KEPT_FOR, LogEntry, MemoryLog
from mcp_bridge.sessions.streams import EVENT_ID, ResumableEvents, is_answer
from tests.mcp_bridge.server import test_session_requests as requests
from tests.mcp_bridge.server.test_session_requests import (
    INITIALIZE,
    Requests,
    log,
    server,
)
from tests.support.asgi import GONE, Client, run
from tests.support.mcp_in_process import called, caller, message, until

pytestmark = pytest.mark.once
RECORDED = "mcp_bridge.middleware.recorded_response"


@pytest.fixture
def mcp(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Requests:
    settings.MCP_SESSIONS = True
    monkeypatch.setattr(f"{RECORDED}.WATCH_AFTER", 0.001)
    monkeypatch.setattr(f"{RECORDED}.RECHECK_EVERY", 0.01)
    monkeypatch.setattr(f"{RECORDED}.RESUMABLE_AFTER", 0.0)
    monkeypatch.setattr(streams, "LOOK_EVERY", 0.01)
    found = Requests(monkeypatch, server)
    found.callers = {
        "alice": caller("alice", "Use"),
        "bob": caller("bob", "Use", user_id=2),
    }
    return found


async def opened(mcp: Requests, who: str, version: str = "2025-11-25") -> str:
    agreed = {**INITIALIZE, "protocolVersion": version}
    reply = await mcp.ask(who, message("initialize", **agreed))
    return reply.headers["mcp-session-id"]


def ids(reply: Client) -> list[str]:
    lines = reply.body.splitlines()
    return [line[4:].decode() for line in lines if line.startswith(b"id: ")]


def data(reply: Client) -> list[Any]:
    lines = [x[6:] for x in reply.body.splitlines() if x.startswith(b"data: {")]
    return [json.loads(line) for line in lines]


def resumed(mcp: Requests, who: str, session: str, event: str) -> Client:
    return mcp.begin(who, b"", session, method="GET", last_event_id=event)


async def left(mcp: Requests, session: str) -> tuple[Client, str]:
    """A call whose client has gone, and the id of its first event."""
    reply = mcp.begin("alice", called("waits"), session)
    await until(lambda: ids(reply))
    reply.events.append(GONE)
    await until(lambda: not reply.events)
    return reply, ids(reply)[0]


async def gone(reply: Client) -> None:
    """Its client disconnects."""
    reply.task.cancel()  # type: ignore[attr-defined]
    await asyncio.gather(reply.task, return_exceptions=True)  # type: ignore[attr-defined]


def test_a_client_that_comes_back_gets_the_result(mcp: Requests) -> None:
    """Also one that comes back before the call has ended, and one that asks twice."""

    async def story() -> None:
        session = await opened(mcp, "alice")
        call, event = await left(mcp, session)
        assert EVENT_ID.match(event) and b"retry: 1000\r\ndata: \r\n" in call.body
        channels = mcp.app.transport.sessions.log.channels
        (end,) = (end for n, (end, _) in channels.items() if n.endswith(event[:16]))
        assert end > time.monotonic() + 0.9 * streams.LONGEST_CALL
        early = resumed(mcp, "alice", session, event)
        await until(lambda: early.sent)
        assert early.headers["mcp-session-id"] == session and data(early) == []
        requests.may_end.set()
        late = None
        for _ in range(2):
            await call.task  # type: ignore[attr-defined]
            late = resumed(mcp, "alice", session, event)
            for reply in (early, late):
                await reply.task  # type: ignore[attr-defined]
                (answer,) = data(reply)
                assert answer["result"]["content"][0]["text"] == "done"
                assert answer["id"] == 7 and len(ids(reply)) == 1
        assert log == ["began", "ended"] and data(call) == []
        outcomes = [e.outcome for e in mcp.events if e.object == "tool waits"]
        assert outcomes == ["ok"]
        assert late is not None
        last = resumed(mcp, "alice", session, ids(late)[0])
        await until(lambda: last.sent)
        assert data(last) == [], "nothing came after the result"
        known = mcp.app.transport.sessions.known[session]
        assert known.stream is not None, "it is an ordinary stream"
        await gone(last)

    mcp.tell(story)


@pytest.mark.parametrize(
    "wrong", ["session", "person", "event", "form", "right", "beginning"]
)
def test_nobody_else_gets_the_result(mcp: Requests, wrong: str) -> None:
    """They get an ordinary stream, as with an event that has expired."""

    async def story() -> None:
        session = await opened(mcp, "alice")
        other, foreign = await opened(mcp, "alice"), await opened(mcp, "bob")
        call, event = await left(mcp, session)
        requests.may_end.set()
        await call.task  # type: ignore[attr-defined]
        who, named = "alice", session
        if wrong == "session":
            named = other
        elif wrong == "person":
            who, named = "bob", foreign
        elif wrong == "event":
            event = f"{'0' * 16}-0"
        elif wrong == "form":
            event = event[:-1]
        elif wrong == "beginning":
            channels = mcp.app.transport.sessions.log.channels
            (name,) = (name for name in channels if name.endswith(event[:16]))
            del channels[name][1][0]
        else:
            mcp.callers["alice"] = caller("alice")
        reply = resumed(mcp, who, named, event)
        await until(lambda: reply.sent)
        assert reply.status == 200 and data(reply) == []
        assert mcp.app.transport.sessions.known[named].stream is not None
        await gone(reply)

    mcp.tell(story)


def test_a_resumed_response_ends_when_the_right_does(mcp: Requests) -> None:
    async def story() -> None:
        session = await opened(mcp, "alice")
        call, event = await left(mcp, session)
        reply = resumed(mcp, "alice", session, event)
        await until(lambda: reply.sent)
        mcp.callers["alice"] = caller("alice")
        await asyncio.sleep(1.2 * FRESH_FOR)
        requests.may_end.set()
        for each in (reply, call):
            await each.task  # type: ignore[attr-defined]
        assert data(reply) == []

    mcp.tell(story)


def test_clients_of_older_protocols_get_no_ids(mcp: Requests) -> None:
    """They cannot read an event without data."""

    async def story() -> None:
        session = await opened(mcp, "alice", "2025-06-18")
        reply = mcp.begin("alice", called("waits"), session)
        await until(lambda: log == ["began"])
        requests.may_end.set()
        await reply.task  # type: ignore[attr-defined]
        assert reply.headers["content-type"] == "application/json"
        assert mcp.app.transport.sessions.log.channels == {}

    mcp.tell(story)


def test_a_result_that_cannot_be_kept_becomes_an_error(
    mcp: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = MemoryLog.append

    async def append(
        self: MemoryLog, channel: str, number: int, content: bytes, *more: float
    ) -> bool:
        done = b'"done"' in content
        return not done and await kept(self, channel, number, content, *more)

    monkeypatch.setattr(MemoryLog, "append", append)

    async def story() -> None:
        session = await opened(mcp, "alice")
        call, event = await left(mcp, session)
        requests.may_end.set()
        await call.task  # type: ignore[attr-defined]
        reply = resumed(mcp, "alice", session, event)
        await reply.task  # type: ignore[attr-defined]
        (answer,) = data(reply)
        assert "could not be kept" in answer["error"]["message"]

    mcp.tell(story)


NOTICE = b'{"method":"notifications/progress"}'
ANSWER = b'{"id":1,"result":{}}'


def rest(
    monkeypatch: pytest.MonkeyPatch, allowed: list[bool], *entries: bytes
) -> bytes:
    """What a client that comes back gets, by these decisions; the last one stays."""
    log, client, again = MemoryLog(), Client(), list(allowed)

    async def is_allowed() -> bool:
        if again == [True] and client.sent:
            # The answer comes after the notice was sent.
            await log.append("c", 2, ANSWER)
        return again.pop(0) if again[1:] else again[0]

    async def story() -> None:
        for number, body in enumerate(entries, 1):
            await log.append("c", number, body)
        session: Any = SimpleNamespace(
            registry=SimpleNamespace(log=log), channel=lambda stream: "c"
        )
        asked = streams.Resumption(session, "s", 0, cast(Any, None))
        monkeypatch.setattr(asked, "is_allowed", is_allowed)
        leaving = asyncio.create_task(asyncio.Event().wait())
        await asked.send_rest(cast(Any, leaving), client.send)
        leaving.cancel()

    monkeypatch.setattr(streams, "LOOK_EVERY", 0.001)
    run(story())
    return b"".join(event["body"] for event in client.sent)


def test_each_event_of_a_resumed_response_is_decided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = rest(monkeypatch, [True, True, False], NOTICE, ANSWER)
    assert NOTICE in sent and ANSWER not in sent
    assert rest(monkeypatch, [False], NOTICE, ANSWER) == b""


def test_each_event_of_a_resumed_response_is_sent_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = rest(monkeypatch, [True], NOTICE)
    assert (sent.count(NOTICE), sent.count(ANSWER)) == (1, 1)
    assert b"id: s-1\r\n" in sent and b"id: s-2\r\n" in sent


def test_events_are_lines() -> None:
    assert sse_event(b"{}") == b"event: message\r\ndata: {}\r\n\r\n"
    assert sse_event(b"{}", "a-1").startswith(b"id: a-1\r\nevent: message\r\n")
    assert is_answer(b'{"id":1,"result":{}}')
    assert not is_answer(b'{"id":1,"method":"ping"}')
    assert is_answer(b'{"id":1,"error":{}}')


@pytest.mark.parametrize(
    "event", ["", "0123456789abcdef", "0123456789abcdef-", "x123456789abcdef-1"]
)
def test_text_that_is_no_event_id_names_no_response(event: str) -> None:
    assert EVENT_ID.match("0123456789abcdef-0") is not None
    for text in (event, "0123456789abcdef-0x", "0123456789abcdef-" + "1" * 10):
        asked = streams.resumption(cast(Any, None), text, cast(Any, Rows(True, None)))
        assert run(asked) is None


def test_an_answer_that_cannot_be_kept_is_kept_as_an_error() -> None:
    """A notice that cannot be kept is left out: the answer may follow."""
    kept: list[tuple[int, Any]] = []

    class Log:
        async def append(
            self, channel: str, number: int, content: bytes, kept_for: float
        ) -> bool:
            if b"long" not in content:
                kept.append((number, json.loads(content)))
            return b"long" not in content

    session = SimpleNamespace(
        registry=SimpleNamespace(log=Log()), channel=lambda purpose: purpose
    )
    call = SimpleNamespace(message=Message("tools/call", content={"id": 7}))

    async def story() -> list[bytes]:
        events = ResumableEvents(cast(Any, session), cast(Any, call))
        notice = b'{"method":"notifications/message","params":"long"}'
        return [await events.event(b) for b in (notice, b'{"id":7,"result":"long"}')]

    sent = run(story())
    assert all(b"long" in event for event in sent)
    numbers = [event.splitlines()[0].rpartition(b"-")[2] for event in sent]
    assert numbers == [b"1", b"2"], "the first event has the number 0"
    ((number, answer),) = kept
    assert (number, answer["id"]) == (2, 7) and "error" in answer


class SharedLog(MemoryLog):
    """A log that other workers read."""

    shared = True


def session_with(log: MemoryLog) -> Any:
    registry = SimpleNamespace(log=log)
    return SimpleNamespace(registry=registry, channel=lambda purpose: f"k/{purpose}")


@pytest.mark.parametrize("log", [SharedLog(), MemoryLog()], ids=["shared", "alone"])
def test_a_running_call_marks_now_and_then_that_it_runs(log: MemoryLog) -> None:
    call: Any = SimpleNamespace(message=requests_message())
    events = streams.ResumableEvents(session_with(log), call)

    async def story() -> None:
        await events.first()
        marks = await log.read([f"k/{events.stream}/alive"], -1)
        assert len(marks) == int(log.shared), "from its beginning on"
        await events.mark_alive()
        marks = await log.read([f"k/{events.stream}/alive"], -1)
        assert len(marks) == int(log.shared), "the only process needs no marks"
        events.marked_at -= streams.ALIVE_EVERY
        await events.mark_alive()
        again = await log.read([f"k/{events.stream}/alive"], -1)
        assert len(again) == 2 * int(log.shared)

    run(story())


def requests_message() -> Any:
    content = {"id": 7, "method": "tools/call"}
    return SimpleNamespace(target=("tool", "waits"), content=content)


@pytest.mark.parametrize("ending", ["gone", "answered", "running"])
def test_who_resumes_learns_that_no_process_runs_the_call(
    monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """Its answer wins if it comes, and a call that runs is waited for."""
    log, client = SharedLog(), Client()
    asked = streams.Resumption(session_with(log), "s", 0, cast(Any, None))
    asked.about = {"content": {"id": 7, "method": "tools/call"}}
    monkeypatch.setattr(streams, "LOOK_EVERY", 0.001)
    monkeypatch.setattr(streams, "GONE_AFTER", 0.02)

    async def is_allowed() -> bool:
        if ending == "answered" and asked.looked_at > began:
            await log.append("k/s", 1, ANSWER)
        return True

    monkeypatch.setattr(asked, "is_allowed", is_allowed)
    began = asked.looked_at

    async def story() -> None:
        if ending == "running":
            await log.append("k/s/alive", 0, b"", 60)
        leaving = asyncio.create_task(asyncio.sleep(0.2))
        await asked.send_rest(cast(Any, leaving), client.send)
        assert leaving.done() == (ending == "running")
        leaving.cancel()

    run(story())
    sent = b"".join(event["body"] for event in client.sent)
    assert (ANSWER in sent) == (ending == "answered")
    assert (streams.GONE.encode() in sent and b'"id":7' in sent) == (ending == "gone")


class Rows:
    """A recheck that finds `problem` when it is due."""

    def __init__(self, due: bool, problem: Exception | None) -> None:
        self.due, self.found = due, problem
        allowed = SimpleNamespace(principal=caller("alice"), catalogue={})
        self.call = allowed

    async def problem(self) -> Exception | None:
        return self.found


@pytest.mark.parametrize(
    ("due", "problem", "allowed"),
    [
        (False, KeyError("not asked"), True),
        (True, None, True),
        (True, KeyError("revoked"), False),
    ],
)
def test_old_rows_are_read_again_before_an_event(
    monkeypatch: pytest.MonkeyPatch, due: bool, problem: Any, allowed: bool
) -> None:
    decided = SimpleNamespace(allowed=True)
    monkeypatch.setattr(streams, "decide", lambda *about: decided)
    rows = cast(Any, Rows(due, problem))
    asked = streams.Resumption(cast(Any, None), "s", 0, rows)
    asked.about = {"content": {"method": "tools/call"}, "target": ["tool", "a"]}
    assert run(asked.is_allowed()) is allowed


class Away:
    """A log whose database does not answer."""

    async def append(self, *about: Any) -> bool:
        raise OperationalError("away")

    async def read(self, *about: Any) -> Any:
        raise OperationalError("away")


def away() -> Any:
    return SimpleNamespace(
        id="s1", registry=SimpleNamespace(log=Away()), channel=lambda name: name
    )


def test_without_a_database_the_client_gets_its_response() -> None:
    """It only cannot resume; a response that is resumed ends."""
    call = SimpleNamespace(message=Message("tools/call", content={"id": 7}))
    events = ResumableEvents(away(), cast(Any, call))
    assert b'{"id":7,"result":{}}' in run(events.event(b'{"id":7,"result":{}}'))
    client = Client()
    asked = streams.Resumption(away(), "s", 0, cast(Any, Rows(False, None)))
    asked.is_allowed = allowed_always  # type: ignore[method-assign]
    run(asked.serve(client.receive, client.send))
    assert client.status == 200 and not client.sent[-1]["more_body"]


async def allowed_always() -> bool:
    return True


def test_a_silent_rest_gets_pings_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call may have ended with its worker."""
    for name, seconds in (("KEPT_FOR", 0.1), ("PING_EVERY", 0.01)):
        monkeypatch.setattr(streams, name, seconds)
    monkeypatch.setattr(streams, "LOOK_EVERY", 0.001)
    client = Client()

    async def story() -> None:
        registry = SimpleNamespace(log=MemoryLog())
        session: Any = SimpleNamespace(registry=registry, channel=lambda name: name)
        asked = streams.Resumption(session, "s", 0, cast(Any, None))
        asked.is_allowed = allowed_always  # type: ignore[method-assign]
        leaving = asyncio.create_task(client.receive())
        await asked.send_rest(cast(Any, leaving), client.send)
        leaving.cancel()

    run(story(), 5)
    assert len(client.sent) >= 2
    assert {event["body"] for event in client.sent} == {b": ping\r\n\r\n"}


def test_a_rest_lasts_as_long_as_something_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each event begins the silence again that ends it."""
    client, clock, bodies = Client(), [0.0], iter([NOTICE, NOTICE, ANSWER])
    monkeypatch.setattr(streams, "LOOK_EVERY", 0.001)
    now = SimpleNamespace(monotonic=lambda: clock[0])
    monkeypatch.setattr(streams, "time", now)

    async def read(after: int) -> list[LogEntry]:
        clock[0] += 0.6 * KEPT_FOR
        return [LogEntry(after, "c", after + 1, next(bodies))]

    async def story() -> None:
        asked: Any = streams.Resumption(cast(Any, None), "s", 0, cast(Any, None))
        asked.read, asked.is_allowed, asked.is_gone = read, allowed_always, never
        leaving = asyncio.create_task(asyncio.Event().wait())
        await asked.send_rest(cast(Any, leaving), client.send)
        leaving.cancel()

    run(story())
    sent = b"".join(event["body"] for event in client.sent)
    assert (sent.count(NOTICE), sent.count(ANSWER)) == (2, 1)


async def never() -> bool:
    return False


def test_an_older_stream_leaves_the_newer_one_alone() -> None:
    """The client may open another before the server notices the end of the first."""

    async def story() -> None:
        registry = SimpleNamespace(set_busy=lambda session: None, deliver=delivered)
        session: Any = SimpleNamespace(id="s1", registry=registry, stream=None)
        first, second = Client(), Client([GONE])
        scope: Any = {"headers": HeaderPairs([])}
        serving = asyncio.create_task(
            streams.serve_stream(scope, session, first.receive, first.send)
        )
        await until(lambda: first.sent)
        older, newer = session.stream, EventStream()
        session.stream = newer
        older.close()
        await serving
        assert session.stream is newer
        await streams.serve_stream(scope, session, second.receive, second.send)
        assert newer.ended and session.stream is None

    async def delivered(sessions: Any) -> None:
        """Nothing waits."""

    run(story(), 5)


def test_the_headers_of_an_open_stream_are_freed() -> None:
    async def story() -> None:
        headers = HeaderPairs([(b"authorization", b"Bearer x")])
        client = Client([GONE])

        async def deliver(sessions: Any) -> None:
            assert headers, "they are read before"

        busy: list[bool] = []

        def set_busy(session: Any) -> None:
            busy.append(session.stream is not None)

        registry = SimpleNamespace(set_busy=set_busy, deliver=deliver)
        session: Any = SimpleNamespace(id="s1", registry=registry, stream=None)
        scope: Any = {"headers": headers}
        await streams.serve_stream(scope, session, client.receive, client.send)
        assert headers == [] and session.stream is None
        assert busy == [True, False], "the session is idle again"

    run(story())
