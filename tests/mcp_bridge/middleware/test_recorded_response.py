"""Responses in one piece lose nothing of a stream."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import pytest
from django.db import OperationalError
from mcp.server import lowlevel

from accounts.tokens.principal import Unauthenticated
from mcp_bridge.access.catalogue import Catalogue
from mcp_bridge.access.context import Call
from mcp_bridge.access.decision import Decision, Reason
from mcp_bridge.access.messages import Message, parse
from mcp_bridge.cache.recheck import Recheck
from mcp_bridge.http.event_stream import stream_head
from mcp_bridge.http.request_body import IncomingBody
from mcp_bridge.middleware import recorded_response
from mcp_bridge.middleware.authorization import AuthorizationMiddleware
from mcp_bridge.middleware.recorded_response import RecordedResponse, RecordedStream
from mcp_bridge.server import transport
from mcp_bridge.server.direct_dispatch import DirectDispatcher
from tests.mcp_bridge.cache.test_decision_cache import principal
from tests.support.asgi import GONE, Client, run

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"{}"}
END = {"type": "http.response.body", "body": b"", "more_body": False}


class FakeTrail:
    """Stores how calls ended; may fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.outcomes: list[str] = []
        self.error = error

    async def record_decision(self, call: Call) -> None:
        if self.error is not None:
            raise self.error
        self.outcomes.append(call.outcome)


class Fresh(Recheck):
    """The rows are current: no read."""

    due = False

    async def now(self, *, looked: bool = False) -> None:
        """As the real one."""


class Failing(Recheck):
    """The database answers with an error."""

    due = True

    async def now(self, *, looked: bool = False) -> None:
        raise OperationalError("gone")


def serve(
    app: Any, trail: FakeTrail, events: list[Any], recheck: type[Recheck] = Fresh
) -> list[dict[str, Any]]:
    """The messages to a client from `app` behind the middleware, given `events`."""
    sent: list[dict[str, Any]] = []

    async def send(event: Any) -> None:
        sent.append(event)

    async def receive() -> Any:
        if events:
            return events.pop(0)
        return await asyncio.Event().wait()

    async def told() -> None:
        call = Call(
            principal("alice"),
            Message("tools/call"),
            Catalogue(),
            Decision(True, Reason.GRANTED),
        )
        middleware = AuthorizationMiddleware.__new__(AuthorizationMiddleware)
        middleware.transport = transport.Transport.__new__(transport.Transport)
        middleware.transport.wants_json = lambda *_: True  # type: ignore[method-assign]
        middleware.transport.direct = DirectDispatcher(lowlevel.Server("none"), app)
        again = recheck(call, "raw", "192.0.2.1", time.perf_counter())
        scope = {"type": "http", "method": "POST", "headers": []}
        body = IncomingBody(receive)
        await middleware.serve(scope, body, send, trail, again)  # type: ignore[arg-type]

    asyncio.run(told())
    return sent


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """A tool that takes its time."""
    await asyncio.sleep(0.1)
    await send(START)
    await send(BODY)


async def quick(scope: Any, receive: Any, send: Any) -> None:
    await send(START)
    await send(BODY)


async def never(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.Event().wait()


def test_a_quick_response_is_sent_once_audited() -> None:
    trail = FakeTrail()
    assert serve(quick, trail, []) == [START, BODY]
    assert trail.outcomes == [""]


@pytest.mark.parametrize("app", [quick, slow])
def test_a_failed_audit_is_503(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded_response, "WATCH_AFTER", 0.001)
    sent = serve(app, FakeTrail(OperationalError("gone")), [])
    assert sent[0]["status"] == 503 and len(sent) == 2


@pytest.mark.spec("MCP HTTP: closing the response stream cancels")
def test_a_client_that_disconnects_cancels_its_call_and_is_audited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MCP 2026-07-28 transports: disconnection is cancellation."""
    monkeypatch.setattr(recorded_response, "WATCH_AFTER", 0.001)
    trail = FakeTrail()
    other, gone = {"type": "http.request"}, {"type": "http.disconnect"}
    assert serve(never, trail, [other, gone]) == []
    assert trail.outcomes == ["cancelled"]


def test_a_slow_response_becomes_a_stream_with_keep_alives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The SDK's own streams do the same, so that no proxy times out."""
    monkeypatch.setattr(recorded_response, "WATCH_AFTER", 0.001)
    monkeypatch.setattr(recorded_response, "PING_EVERY", 0.01)
    trail = FakeTrail()
    head, *pings, last = serve(slow, trail, [])
    assert head == stream_head()
    assert pings and all(p["body"].startswith(b": ping") for p in pings)
    assert last["body"] == b"event: message\r\ndata: {}\r\n\r\n"
    assert not last.get("more_body") and trail.outcomes == [""]


def test_a_slow_response_survives_a_short_outage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A failed check ends the call only once a response is ready; then it is 503."""
    monkeypatch.setattr(recorded_response, "WATCH_AFTER", 0.001)
    monkeypatch.setattr(recorded_response, "RECHECK_EVERY", 0.01)
    trail = FakeTrail()
    sent = serve(slow, trail, [], Failing)
    assert [e.get("status") for e in sent] == [503, None] and trail.outcomes == []


@pytest.mark.parametrize(
    ("body", "streams"),
    [
        (b'{"method":"tools/call","params":{"name":"x"}}', False),
        (b'{"method":"tools/call","params":{"name":"x","_meta":{}}}', False),
        (b'{"method":"tools/list","params":{"_meta":{"progressToken":0}}}', True),
        (b'{"method":"subscriptions/listen"}', True),
        (
            b'{"method":"tools/list","params":{"_meta":'
            b'{"io.modelcontextprotocol/logLevel":"info"}}}',
            True,
        ),
    ],
)
def test_only_requests_that_ask_for_it_get_a_stream(body: bytes, streams: bool) -> None:
    """MCP 2026-07-28: progress, log messages and subscriptions are requested."""
    message = parse(b'{"jsonrpc":"2.0","id":1,' + body[1:])
    assert message.streams is streams


def a_call() -> Call:
    message, decision = Message("tools/call"), Decision(True, Reason.GRANTED)
    return Call(principal("alice"), message, Catalogue(), decision)


class SlowTrail(FakeTrail):
    """Commits an event only when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.may_end = 0, asyncio.Event()

    async def record_decision(self, call: Call) -> None:
        self.begun += 1
        await self.may_end.wait()
        await super().record_decision(call)


PING = {"type": "http.response.body", "body": b": ping", "more_body": True}
EVENT = {"type": "http.response.body", "body": b"data: {}", "more_body": True}


def recorded_stream(
    trail: Any, hold_head: bool, target: tuple[str, str] | None = None
) -> tuple[RecordedStream, Client]:
    client, call = Client(), a_call()
    call.message = replace(call.message, target=target)
    return RecordedStream(client.send, trail, call, hold_head=hold_head), client


@pytest.mark.parametrize("hold_head", [False, True])
def test_no_event_overtakes_the_record_of_another(hold_head: bool) -> None:
    """While the first waits for its record, the second waits too."""

    async def story() -> None:
        trail = SlowTrail()
        stream, client = recorded_stream(trail, hold_head)
        sends = [asyncio.create_task(stream(event)) for event in (START, EVENT, PING)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert (client.sent, trail.begun, trail.outcomes) == ([], 1, [])
        trail.may_end.set()
        await asyncio.gather(*sends)
        assert client.sent == [START, EVENT, PING]
        assert (trail.begun, trail.outcomes) == (1, [""])

    run(story())


def test_a_held_head_waits_for_the_first_content() -> None:
    """So that the outcome of a call with one event is recorded."""

    async def story() -> None:
        trail = FakeTrail()
        stream, client = recorded_stream(trail, hold_head=True)
        await stream(START)
        assert (client.sent, trail.outcomes, stream.begun) == ([], [], False)
        stream.call.outcome = "ok"
        await stream(EVENT)
        await stream(PING)
        assert client.sent == [START, EVENT, PING] and stream.begun
        assert trail.outcomes == ["ok"]
        await stream.close()
        assert client.sent == [START, EVENT, PING]

    run(story())


RESULT = {
    "type": "http.response.body",
    "body": b'event: message\r\ndata: {"jsonrpc":"2.0","id":1,"result":{}}\r\n\r\n',
    "more_body": True,
}


@pytest.mark.parametrize(
    ("first", "recorded"),
    [
        (b'data: {"method":"notifications/progress","params":{}}\r\n\r\n', []),
        (b'data: {"id":1,"method":"x","params":{"result":{}}}\r\n\r\n', []),
        (b": ping\r\n\r\n", []),
        (b'data: {"id":1,"result":{"structured":{"method":1}}}\r\n\r\n', ["began"]),
        (b'data: {"id":1,"error":{}}\r\n\r\n', ["began"]),
        (b'data: no JSON "result":\r\n\r\n', ["began"]),
    ],
)
def test_a_call_is_recorded_with_the_outcome_of_its_result(
    first: bytes, recorded: list[str]
) -> None:
    """Progress and questions come before it is known."""

    async def story() -> None:
        trail = FakeTrail()
        stream, client = recorded_stream(trail, hold_head=True, target=("tool", "x"))
        stream.call.outcome = "began"
        await stream(START)
        await stream({**RESULT, "body": first})
        assert len(client.sent) == 2 and trail.outcomes == recorded
        stream.call.outcome = "ok"
        await stream(RESULT)
        assert len(client.sent) == 3 and trail.outcomes == (recorded or ["ok"])

    run(story())


def test_a_stream_whose_result_cannot_be_recorded_ends_before_it() -> None:
    async def story() -> None:
        trail = FakeTrail(OperationalError("gone"))
        stream, client = recorded_stream(trail, hold_head=True, target=("tool", "x"))
        for event in (START, {**RESULT, "body": b": ping\r\n\r\n"}, RESULT, RESULT):
            await stream(event)
        assert client.sent[2:] == [{"type": "http.response.body", "body": b""}]

    run(story())


def test_a_head_that_is_not_held_is_recorded_at_once() -> None:
    async def story() -> None:
        trail = FakeTrail()
        stream, client = recorded_stream(trail, hold_head=False)
        await stream(START)
        assert (client.sent, trail.outcomes, stream.begun) == ([START], [""], True)

    run(story())


@pytest.mark.parametrize("hold_head", [False, True])
def test_a_stream_that_cannot_be_recorded_is_503_and_nothing_else(
    hold_head: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        trail = FakeTrail(OperationalError("gone"))
        stream, client = recorded_stream(trail, hold_head)
        for event in (START, EVENT, PING):
            await stream(event)
        assert client.status == 503 and len(client.sent) == 2
        assert stream.begun and stream.failed

    run(story())
    assert "The call could not be recorded" in caplog.text


class Told(Recheck):
    """Answers what the test says; counts its reads."""

    old = False
    why: Exception | None = None
    reads = 0

    @property
    def due(self) -> bool:
        return self.old

    async def now(self, *, looked: bool = False) -> None:
        self.reads += 1
        if self.why is not None:
            raise self.why


def single(trail: Any, **state: Any) -> tuple[RecordedResponse, Client, Told]:
    """A response in the current task."""
    client, again = Client(), Told(a_call(), "raw", "192.0.2.1", 0.0)
    for name, value in state.items():
        setattr(again, name, value)
    return RecordedResponse(client.send, client.receive, trail, again), client, again


async def cancelled(reply: RecordedResponse) -> None:
    """Take the cancellation that the response asked for, so that the test goes on."""
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)
    reply.serving.uncancel()


def test_an_answer_is_checked_before_and_after_its_record() -> None:
    """The commit may take long."""

    async def story() -> None:
        trail = FakeTrail()
        reply, client, again = single(trail, old=True)
        await reply(START)
        assert client.sent == [] and again.reads == 0
        await reply(BODY)
        assert client.sent == [START, BODY] and again.reads == 2
        assert reply.begun and trail.outcomes == [""]

    run(story())


def test_an_answer_whose_access_ended_is_neither_recorded_nor_sent() -> None:
    async def story() -> None:
        trail = FakeTrail()
        reply, client, _again = single(trail, old=True, why=Unauthenticated("revoked"))
        await reply(START)
        await reply(BODY)
        assert (client.sent, trail.outcomes, reply.begun) == ([], [], False)
        assert isinstance(reply.end, Unauthenticated)

    run(story())


def test_access_that_ends_during_the_record_withholds_the_answer() -> None:
    async def story() -> None:
        trail = SlowTrail()
        reply, client, again = single(trail)
        await reply(START)
        task = asyncio.create_task(reply(BODY))
        while not trail.begun:
            await asyncio.sleep(0)
        again.old, again.why = True, Unauthenticated("revoked")
        trail.may_end.set()
        await task
        assert client.sent == [] and isinstance(reply.end, Unauthenticated)

    run(story())


def test_a_body_without_a_head_is_not_sent() -> None:
    async def story() -> None:
        reply, client, _again = single(FakeTrail())
        await reply(BODY)
        assert client.sent == []

    run(story())


def test_an_answer_waits_for_a_check_that_has_begun() -> None:
    """A ping and the answer must not be mixed."""

    async def story() -> None:
        reply, client, _again = single(FakeTrail())
        reply.start_watching()
        assert reply.lock is not None
        await reply.lock.acquire()
        await reply(START)
        task = asyncio.create_task(reply(BODY))
        for _ in range(5):
            await asyncio.sleep(0)
        assert client.sent == [] and not reply.finishing
        reply.lock.release()
        await task
        assert client.sent == [START, BODY] and reply.finishing
        await reply.recheck_or_ping(ping=True)
        assert client.sent == [START, BODY], "nothing follows the answer"
        reply.stop()

    run(story())


def test_a_check_cancels_a_call_that_is_no_longer_allowed() -> None:
    async def story() -> None:
        reply, client, again = single(FakeTrail())
        await reply.recheck_or_ping(ping=False)
        assert client.sent == [] and again.reads == 1
        again.why = OperationalError("away")
        await reply.recheck_or_ping(ping=True)
        assert reply.end is None and len(client.sent) == 2, "an outage is survived"
        again.why = Unauthenticated("revoked")
        await reply.recheck_or_ping(ping=True)
        assert len(client.sent) == 2
        reply.stop()
        await cancelled(reply)

    run(story())


def test_a_stream_ends_without_the_answer_that_cannot_be_recorded() -> None:
    async def story() -> None:
        trail = FakeTrail(OperationalError("gone"))
        reply, client, _again = single(trail)
        await reply.ping()
        await reply.ping()
        assert client.status == 200 and reply.streaming
        await reply(START)
        await reply(BODY)
        assert client.sent[3:] == [END] and not reply.streaming
        await reply.close()
        assert len(client.sent) == 4
        reply.stop()

    run(story())


def test_a_disconnect_is_recorded_once() -> None:
    async def story() -> None:
        trail = FakeTrail()
        reply, _client, _again = single(trail)
        reply.left = True
        await reply.settle()
        await reply.settle()
        assert trail.outcomes == [""]
        reply.stop()

    run(story())


@pytest.mark.parametrize(
    ("outlives", "can_resume", "interrupted"),
    [(False, False, True), (True, False, False), (False, True, False)],
)
def test_a_disconnect_ends_a_call_that_nobody_can_come_back_for(
    monkeypatch: pytest.MonkeyPatch, outlives: bool, can_resume: bool, interrupted: bool
) -> None:
    monkeypatch.setattr(recorded_response, "RECHECK_EVERY", 0.001)

    async def story() -> None:
        reply, client, again = single(FakeTrail())
        client.events.append(GONE)
        reply.outlives_client = outlives
        if can_resume:
            resumable(reply)
        reply.begun = can_resume
        reply.start_watching()
        with suppress(asyncio.CancelledError):
            while again.reads < 2:
                await asyncio.sleep(0.001)
        assert reply.left and reply.interrupted is interrupted
        reply.stop()
        while reply.serving.cancelling():
            reply.serving.uncancel()

    run(story())


def test_a_message_before_the_answer_needs_the_right_too() -> None:
    async def story() -> None:
        reply, client, again = single(FakeTrail())
        await reply.push(b"{}")
        assert len(client.sent) == 2 and again.reads == 0
        again.old = True
        await reply.push(b"{}")
        assert len(client.sent) == 3 and again.reads == 1
        again.why = Unauthenticated("revoked")
        await reply.push(b"{}")
        assert len(client.sent) == 3 and reply.interrupted
        reply.stop()
        await cancelled(reply)

    run(story())


def test_a_call_is_cancelled_once() -> None:
    """A second cancellation would reach what the first one left to run."""

    async def story() -> None:
        reply, _client, _again = single(FakeTrail())
        for _ in range(2):
            reply.interrupt()
        assert reply.serving.cancelling() == 1
        reply.stop()
        await cancelled(reply)

    run(story())


def test_an_answer_that_is_being_sent_is_not_cancelled() -> None:
    async def story() -> None:
        reply, client, _again = single(FakeTrail())
        await reply(START)
        await reply(BODY)
        reply.cancel(404, b"gone")
        await asyncio.sleep(0)
        assert reply.instead is None and not reply.interrupted
        await reply.push(b"{}")
        assert client.sent == [START, BODY]

    run(story())


def test_only_a_response_that_can_be_resumed_is_ended_early() -> None:
    async def story() -> None:
        reply, client, _again = single(FakeTrail())
        await reply.detach()
        assert client.sent == [] and not reply.detached
        reply.stop()

    run(story())


def test_pings_keep_their_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks come more often than pings; each ping starts the silence again."""
    monkeypatch.setattr(recorded_response, "RECHECK_EVERY", 0.004)
    monkeypatch.setattr(recorded_response, "PING_EVERY", 0.012)

    async def story() -> None:
        reply, client, again = single(FakeTrail())
        reply.start_watching()
        while again.reads < 9:
            await asyncio.sleep(0.001)
        reply.stop()
        pings = [e for e in client.sent[1:] if e["body"] == b": ping\r\n\r\n"]
        assert len(pings) == again.reads // 3
        assert client.sent[0] == stream_head()

    run(story())


class Kept:
    """The events of a response that can be resumed; counts the marks of its call."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.marks = 0

    async def first(self) -> bytes:
        return b"first"

    async def event(self, body: bytes) -> bytes:
        self.kept.append(body)
        return b"kept " + body

    async def mark_alive(self) -> None:
        self.marks += 1


def resumable(reply: RecordedResponse) -> Kept:
    """Let the client of `reply` resume its stream."""
    events = Kept()
    reply.events = cast(Any, events)
    return events


def part(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


@pytest.mark.parametrize("session_id", ["", "the-session"])
def test_after_a_response_was_ended_early_its_call_only_keeps_its_events(
    session_id: str,
) -> None:
    """Whoever resumes it gets them; the response itself is over, the client stays."""

    async def story() -> None:
        trail = FakeTrail()
        reply, client, _again = single(trail)
        events = resumable(reply)
        reply.session_id = session_id
        await reply.detach()
        named = [(b"mcp-session-id", session_id.encode())] if session_id else []
        begun = [stream_head(*named), part(b"first"), END]
        assert client.sent == begun
        assert reply.detached and not reply.left and not reply.interrupted
        await reply.push(b'{"method":"x"}')
        await reply.ping()
        await reply.recheck_or_ping(ping=True)
        await reply(START)
        await reply(BODY)
        await reply.close()
        assert client.sent == begun and trail.outcomes == [""]
        assert events.kept == [b'{"method":"x"}', BODY["body"]]
        await reply.detach()
        assert client.sent == begun, "an answer cannot be ended early"
        reply.stop()

    run(story())


def test_every_event_of_a_resumable_response_is_kept_before_it_is_sent() -> None:
    async def story() -> None:
        reply, client, _again = single(FakeTrail())
        events = resumable(reply)
        await reply.push(b"1")
        await reply(START)
        await reply(BODY)
        assert client.sent[1:] == [
            part(b"first"),
            part(b"kept 1"),
            part(b"kept {}", False),
        ]
        assert events.kept == [b"1", b"{}"] and not reply.streaming
        reply.stop()

    run(story())


def test_a_call_is_marked_as_running_once_its_client_can_resume(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At every check; before the stream has begun nobody can look for it."""
    monkeypatch.setattr(recorded_response, "RECHECK_EVERY", 0.001)

    async def story() -> None:
        reply, client, again = single(FakeTrail())
        events = resumable(reply)
        reply.start_watching()
        while again.reads < 4:
            await asyncio.sleep(0)
        assert (events.marks, client.sent) == (0, [])
        await reply.open_stream()
        before = again.reads
        while again.reads < before + 4:
            await asyncio.sleep(0)
        assert events.marks == again.reads - before
        reply.stop()

    run(story())


@pytest.mark.parametrize("can_resume", [True, False])
@pytest.mark.parametrize(("watched", "resumable_at"), [(0.0, 0.003), (0.4, 0.403)])
def test_a_slow_answer_can_be_resumed_long_before_the_first_ping(
    monkeypatch: pytest.MonkeyPatch,
    can_resume: bool,
    watched: float,
    resumable_at: float,
) -> None:
    """Only where its events are kept; the others wait for a ping."""
    monkeypatch.setattr(recorded_response, "RECHECK_EVERY", 0.001)
    monkeypatch.setattr(recorded_response, "WATCH_AFTER", watched)
    monkeypatch.setattr(recorded_response, "RESUMABLE_AFTER", resumable_at)

    async def story() -> None:
        reply, client, again = single(FakeTrail())
        if can_resume:
            resumable(reply)
        reply.start_watching()
        while again.reads < 2:
            await asyncio.sleep(0)
        assert client.sent == []
        while again.reads < 6:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        reply.stop()
        sent = [stream_head(), part(b"first"), part(b": ping\r\n\r\n")]
        assert client.sent == (sent if can_resume else [])

    run(story())


@pytest.mark.parametrize("begun", [False, True])
def test_what_is_stopped_watches_no_longer(begun: bool) -> None:
    """Neither the timer nor the task outlives the request."""

    async def story() -> None:
        reply, _client, again = single(FakeTrail())
        if not begun:
            reply.stop()
            assert reply.alarm.cancelled() and reply.watching is None
        reply.start_watching()
        watching = reply.watching
        assert watching is not None
        if begun:
            await asyncio.sleep(0)
        reply.stop()
        await asyncio.wait([watching], timeout=1)
        assert watching.cancelled() and reply.alarm.cancelled() and again.reads == 0

    run(story())


@pytest.mark.parametrize("session_id", ["", "abc"])
def test_a_late_stream_names_its_session(session_id: str) -> None:
    """A client may learn it from this response only (MCP 2025-11-25)."""

    async def story() -> None:
        reply, client, _again = single(FakeTrail())
        reply.session_id = session_id
        await reply.ping()
        named = [(b"mcp-session-id", b"abc")] if session_id else []
        assert client.sent[0] == stream_head(*named)
        reply.stop()

    run(story())


@pytest.mark.parametrize("left", [True, False])
def test_a_call_that_another_ends_gets_its_answer(left: bool) -> None:
    """Whoever has left gets nothing; the call is recorded anyway."""

    async def story() -> None:
        trail = FakeTrail()
        reply, client, _again = single(trail)
        reply.cancel(404, b'{"gone": true}')
        reply.cancel(500, b"another")
        assert reply.instead == (404, b'{"gone": true}')
        await cancelled(reply)
        assert reply.serving.cancelling() == 0, "one cancellation"
        reply.left = left
        await reply.settle()
        head = {
            "type": "http.response.start",
            "status": 404,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", b"14"),
            ],
        }
        body = {"type": "http.response.body", "body": b'{"gone": true}'}
        assert client.sent == ([] if left else [head, body])
        assert trail.outcomes == [""]
        reply.stop()

    run(story())


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("can_resume", [False, True])
def test_a_client_that_has_left_is_sent_nothing(begun: bool, can_resume: bool) -> None:
    """The call may continue: its client, or another worker, comes back for it."""

    async def story() -> None:
        reply, client, again = single(FakeTrail())
        events = resumable(reply) if can_resume else None
        if begun:
            await reply.ping()
        client.sent.clear()
        reply.left = True
        await reply.recheck_or_ping(ping=True)
        await reply.ping()
        await reply.push(b'{"method":"x"}')
        assert client.sent == [] and reply.begun is begun and again.reads == 1
        await reply.close()
        assert client.sent == []
        if events is not None:
            assert events.kept == ([b'{"method":"x"}'] if begun else [])
        reply.stop()

    run(story())


def test_other_events_of_a_client_are_no_disconnect() -> None:
    async def story() -> None:
        reply, client, _again = single(FakeTrail())
        client.events += [{"type": "http.request"}] * 3
        assert not await reply.disconnected(0.002)
        client.events += [{"type": "http.request"}, GONE]
        assert await reply.disconnected(1)
        assert client.events == []
        reply.stop()

    run(story())


@pytest.mark.parametrize(
    ("body", "more", "before"),
    [
        (b"", False, True),
        (b"", True, True),
        (b'{"error":{}}', False, False),
        (b"data: {}", False, False),
        (b": ping", True, True),
        (b'data: {"method":"x"}', True, True),
        (b'data: {"result":{}}', True, False),
        (b'data: {"error":{}}', True, False),
        (b'data: {"method":"x","params":{"error":{}}}', True, True),
        (b'data: {"method":"x","params":{"result":{}}}', True, True),
        (b'"result":', True, False),
        (b'"result": without data', True, False),
        (b'data: "error":', True, False),
        (b'data: [] "error":', True, False),
    ],
)
def test_what_comes_before_an_answer(body: bytes, more: bool, before: bool) -> None:
    assert recorded_response.comes_before(part(body, more)) is before


def test_a_head_never_comes_before_an_answer() -> None:
    """It has a status, which a failed record must still be able to choose."""
    assert not recorded_response.comes_before(START)


def test_the_head_of_a_late_stream_forbids_buffering() -> None:
    assert dict(stream_head()["headers"]) == {
        b"content-type": b"text/event-stream",
        b"cache-control": b"no-cache, no-transform",
        b"x-accel-buffering": b"no",
    }


def test_nothing_is_pushed_while_the_answer_is_recorded() -> None:
    """It would open a stream before the answer, which has its own head."""

    async def story() -> None:
        trail = SlowTrail()
        reply, client, _again = single(trail)
        await reply(START)
        task = asyncio.create_task(reply(BODY))
        while not trail.begun:
            await asyncio.sleep(0)
        assert reply.alarm.cancelled(), "a disconnect cancels no call that has ended"
        resumable(reply)
        await reply.push(b"{}")
        await reply.detach()
        trail.may_end.set()
        await task
        assert client.sent == [START, BODY] and not reply.detached
        reply.stop()

    run(story())
