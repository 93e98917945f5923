"""Open streams: they end with the access of their message, and with the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, copy_context
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from django.db import OperationalError

from accounts.tokens.principal import Principal, Unauthenticated
from mcp_bridge.access.catalogue import Catalogue, Rule
from mcp_bridge.access.context import Call
from mcp_bridge.access.decision import Decision, Reason
from mcp_bridge.access.messages import Message
from mcp_bridge.cache import recheck
from mcp_bridge.cache.decision_cache import Mark
from mcp_bridge.cache.readers.base import LogPosition
from mcp_bridge.cache.recheck import AccessWithdrawn, Recheck
from mcp_bridge.http.event_stream import PING_EVERY
from mcp_bridge.middleware import revocable_stream
from mcp_bridge.middleware.recorded_response import (
    RECHECK_EVERY,
    WATCH_AFTER,
    RecordedStream,
)
from mcp_bridge.middleware.revocable_stream import (
    AT_ONCE,
    OpenStreams,
    RevocableStream,
)
from tests.support.asgi import Client, run
from tests.support.mcp_in_process import caller

pytestmark = pytest.mark.once
STREAM = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"Content-Type", b"text/event-stream; charset=utf-8")],
}
JSON = {**STREAM, "headers": [(b"content-type", b"application/json")]}
END = {"type": "http.response.body", "body": b"", "more_body": False}


def part(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


class Trail:
    """Counts the events of the audit."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []

    async def record_decision(self, call: Call) -> None:
        self.outcomes.append(call.outcome)


class Stream:
    """A stream of alice, the rows behind it, and what was sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: Principal | Exception = caller("alice", "Use")
        self.enabled, self.reads = True, 0
        self.client, self.trail = Client(), Trail()
        message = Message("resources/read", ("resource", "a://b"), streams=True)
        call = Call(
            caller("alice", "Use"), message, Catalogue(), Decision(True, Reason.GRANTED)
        )
        self.recheck = Recheck(call, "raw", "192.0.2.1", time.perf_counter())
        self.end: Exception | None = None
        monkeypatch.setattr(recheck, "resolve_token", self.resolve)

    async def resolve(self, raw: str) -> tuple[Principal, Catalogue]:
        """Replaces the read of the rows."""
        self.reads += 1
        if isinstance(self.rows, Exception):
            raise self.rows
        rule = Rule("resource", "a://b", self.enabled, False, frozenset({"Use"}))
        return self.rows, Catalogue([rule])

    def serve(self, app: Any, hold_head: bool = False) -> list[dict[str, Any]]:
        """Serve until the stream ends; what was sent."""

        async def told() -> None:
            send = RecordedStream(
                self.client.send,
                self.trail,  # type: ignore[arg-type]
                self.recheck.call,
                hold_head=hold_head,
            )
            guarded = RevocableStream(app, self.recheck)
            await guarded({}, self.client.receive, send)
            self.end = guarded.end

        run(told())
        return self.client.sent

    def old(self) -> None:
        """The last read is no longer current."""
        self.recheck.read_at -= 1


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    return Stream(monkeypatch)


async def forever(scope: Any, receive: Any, send: Any) -> None:
    """A subscription without events."""
    await send(STREAM)
    await asyncio.Event().wait()


def revoke(stream: Stream) -> None:
    stream.rows = Unauthenticated("revoked")


def bind(stream: Stream) -> None:
    stream.rows = caller("alice", "Use", networks=(("198.51.100.0/24",),))


def bind_role(stream: Stream) -> None:
    networks = {"Crew": ("198.51.100.0/24",)}
    stream.rows = caller("alice", "Use", role_networks=networks)


def disable(stream: Stream) -> None:
    stream.enabled = False


def narrow(stream: Stream) -> None:
    stream.rows = caller("alice", "Use", token_scopes=frozenset({"x"}))


def lose_database(stream: Stream) -> None:
    stream.rows = OperationalError("away")


ENDINGS: list[tuple[Callable[[Stream], None], type[Exception]]] = [
    (revoke, Unauthenticated),
    (bind, Unauthenticated),
    (bind_role, AccessWithdrawn),
    (disable, AccessWithdrawn),
    (narrow, AccessWithdrawn),
    (lose_database, OperationalError),
]


@pytest.mark.parametrize(("ends", "why"), ENDINGS)
def test_an_open_stream_ends_with_its_access(
    stream: Stream, monkeypatch: pytest.MonkeyPatch, ends: Any, why: type[Exception]
) -> None:
    """Also when the token or its role is bound to other networks meanwhile."""
    monkeypatch.setattr(revocable_stream, "RECHECK_EVERY", 0.001)
    ends(stream)
    assert stream.serve(forever) == [STREAM, END]
    assert isinstance(stream.end, why) and stream.trail.outcomes == [""]


@pytest.mark.parametrize(("ends", "why"), ENDINGS)
def test_no_content_is_sent_after_access_ended(
    stream: Stream, ends: Any, why: type[Exception]
) -> None:
    """Before the next check at an interval is due."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(STREAM)
        await send(part(b"first"))
        ends(stream)
        stream.old()
        await send(part(b"second"))
        await asyncio.Event().wait()

    assert stream.serve(app) == [STREAM, part(b"first"), END]
    assert isinstance(stream.end, why)


def test_a_network_that_contains_the_client_keeps_the_stream(stream: Stream) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(STREAM)
        stream.rows = caller("alice", "Use", networks=(("192.0.2.0/24",),))
        stream.old()
        await send(part(b"content", more=False))

    assert stream.serve(app) == [STREAM, part(b"content", more=False)]
    assert stream.end is None and stream.reads == 1


def test_content_soon_after_a_read_needs_no_other(stream: Stream) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(STREAM)
        await send(part(b"a"))
        await send(part(b"b", more=False))

    assert len(stream.serve(app)) == 3 and stream.reads == 0


@pytest.mark.parametrize("body", [b"", b": ping\r\n\r\n", b":\n: a\n\n"])
def test_pings_without_content_read_nothing(stream: Stream, body: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(STREAM)
        stream.old()
        await send(part(body))
        await send(END)

    assert stream.serve(app) == [STREAM, part(body), END] and stream.reads == 0


@pytest.mark.parametrize("body", [b": ping\r\ndata: 1\r\n\r\n", b":\n\nevent: a\n\n"])
def test_content_after_a_comment_is_content(stream: Stream, body: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(STREAM)
        revoke(stream)
        stream.old()
        await send(part(body))

    assert stream.serve(app) == [STREAM, END] and stream.reads == 1


def test_nothing_is_sent_if_access_ended_before_the_head(stream: Stream) -> None:
    """The caller sends the refusal, with its status."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(STREAM)
        revoke(stream)
        stream.old()
        await send(part(b"content"))
        await send(part(b"more"))

    assert stream.serve(app, hold_head=True) == []
    assert isinstance(stream.end, Unauthenticated) and stream.trail.outcomes == []


def test_events_after_the_end_are_dropped(stream: Stream) -> None:
    """An application may catch the cancellation and go on."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(STREAM)
        revoke(stream)
        stream.old()
        for body in (b"a", b"b"):
            with pytest.raises(asyncio.CancelledError):
                await send(part(body))
                await asyncio.sleep(0)

    assert stream.serve(app) == [STREAM, END]


def test_an_app_that_returns_early_has_its_stream_closed(stream: Stream) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(STREAM)
        await send(part(b"a"))

    assert stream.serve(app) == [STREAM, part(b"a"), END]


def test_a_complete_stream_is_not_closed_twice(stream: Stream) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(STREAM)
        await send(part(b"a", more=False))

    assert stream.serve(app) == [STREAM, part(b"a", more=False)]


def test_a_single_response_is_passed_on_unchanged(stream: Stream) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(JSON)
        await send(part(b"{}", more=False))

    assert stream.serve(app, hold_head=True) == [JSON, part(b"{}", more=False)]


def test_a_response_without_content_is_not_closed_as_a_stream(stream: Stream) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(JSON)

    assert stream.serve(app) == [JSON]


def test_a_stopping_server_ends_streams_at_once(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocable_stream, "RECHECK_EVERY", 0.001)
    monkeypatch.setattr(revocable_stream, "shutting_down", lambda: True)
    assert stream.serve(forever) == [STREAM, END]
    assert stream.end is None


def test_a_stopping_server_lets_running_calls_finish(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocable_stream, "RECHECK_EVERY", 0.001)
    monkeypatch.setattr(revocable_stream, "shutting_down", lambda: True)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.02)
        await send(JSON)
        await send(part(b"{}", more=False))

    assert stream.serve(app) == [JSON, part(b"{}", more=False)]
    assert stream.reads > 1


def test_the_watch_goes_on_while_access_lasts(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocable_stream, "RECHECK_EVERY", 0.001)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(STREAM)
        while stream.reads < 3:
            await asyncio.sleep(0.001)
        revoke(stream)
        await asyncio.Event().wait()

    assert stream.serve(app) == [STREAM, END] and stream.reads >= 4


def test_an_exception_of_the_app_ends_the_watch(stream: Stream) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("broken")

    with pytest.raises(KeyError):
        stream.serve(app)
    assert not revocable_stream.OPEN_STREAMS.members


def test_the_intervals_are_those_of_the_documentation() -> None:
    """docs/security.md: after 0.4 seconds, every half second, 15 seconds of silence."""
    assert (WATCH_AFTER, RECHECK_EVERY, PING_EVERY) == (0.4, 0.5, 15.0)


class ManyStreams:
    """Idle streams of alice on one cache whose checks are counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        self.marks: list[Mark | Exception] = []
        self.position = 1
        self.broken: Exception | None = None
        self.streams = [Stream(monkeypatch) for _ in range(count)]
        self.told: list[int] = []
        monkeypatch.setattr(revocable_stream, "RECHECK_EVERY", 0.001)
        monkeypatch.setattr(revocable_stream, "change_mark", self.change_mark)
        monkeypatch.setattr(recheck, "resolve_known", self.resolve_known)
        self.known: list[str] = []
        self.rows: dict[str, Principal | Exception] = {}

    async def change_mark(self) -> Mark | None:
        """Replaces the check for changes."""
        if self.broken is not None:
            raise self.broken
        self.marks.append(Mark(LogPosition("e", self.position), 0))
        return self.marks[-1]  # type: ignore[return-value]

    async def resolve_known(self, raw: str) -> tuple[Principal, Catalogue]:
        """Replaces the read of the cache."""
        self.known.append(raw)
        found = self.rows.get(raw, caller("alice", "Use"))
        if isinstance(found, Exception):
            raise found
        rule = Rule("resource", "a://b", True, False, frozenset({"Use"}))
        return found, Catalogue([rule])

    def guard(self, number: int) -> RevocableStream:
        """Stream `number`; it counts how often it may tell of changes."""

        async def tell() -> None:
            self.told.append(number)

        stream = self.streams[number]
        stream.recheck.raw = f"raw-{number}"
        return RevocableStream(forever, stream.recheck, tell)

    async def served(self, story: Callable[[], Awaitable[None]]) -> list[Any]:
        """Open all streams, run the story, and return why each stream ended."""
        guards = [self.guard(number) for number in range(len(self.streams))]
        tasks = []
        for stream, guard in zip(self.streams, guards, strict=True):
            trail: Any = stream.trail
            call, sent = stream.recheck.call, stream.client.send
            send = RecordedStream(sent, trail, call, hold_head=False)
            tasks.append(asyncio.ensure_future(guard({}, stream.client.receive, send)))
        await self.looks(2)
        await story()
        ended = [guard.end for guard in guards]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not revocable_stream.OPEN_STREAMS.members
        return ended

    async def looks(self, count: int) -> None:
        """Wait for this many more checks."""
        before = len(self.marks)
        while len(self.marks) < before + count:
            await asyncio.sleep(0.001)


def test_all_streams_share_one_check_and_read_only_after_a_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = ManyStreams(monkeypatch, 30)

    async def story() -> None:
        assert sorted(many.known) == sorted(f"raw-{n}" for n in range(30)), "once each"
        await many.looks(3)
        assert len(many.known) == len(many.told) == 30, "nothing changed"
        many.position += 1
        await many.looks(2)
        assert len(many.known) == len(many.told) == 60

    assert run(many.served(story)) == [None] * 30


def test_a_change_ends_only_the_streams_that_it_concerns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = ManyStreams(monkeypatch, 3)

    async def story() -> None:
        many.rows["raw-1"] = Unauthenticated("revoked")
        await many.looks(2)
        assert len(many.known) == 3, "no change is known yet"
        many.position += 1
        await many.looks(2)

    ended = run(many.served(story))
    assert [type(end) for end in ended] == [type(None), Unauthenticated, type(None)]


def test_a_stream_ends_when_its_token_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any change of a row."""
    many = ManyStreams(monkeypatch, 2)
    many.rows["raw-0"] = caller("alice", "Use", valid_until=time.time() + 0.05)

    async def story() -> None:
        many.rows["raw-0"] = Unauthenticated("expired")
        await asyncio.sleep(0.06)
        await many.looks(2)

    ended = run(many.served(story))
    assert isinstance(ended[0], Unauthenticated) and ended[1] is None


@pytest.mark.parametrize("error", [OperationalError("away"), ValueError("a defect")])
def test_streams_that_cannot_be_checked_end(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """All if the change log cannot be read, one if its rows cannot."""
    many = ManyStreams(monkeypatch, 2)

    async def story() -> None:
        many.rows["raw-1"] = error
        many.position += 1
        await many.looks(2)
        assert [len(one.client.sent) for one in many.streams] == [1, 2]
        many.broken = error
        await asyncio.sleep(0.02)

    assert run(many.served(story)) == [error, error]


def test_the_watch_ends_with_the_last_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    many = ManyStreams(monkeypatch, 1)

    async def story() -> None:
        await many.served(nothing)
        looks = len(many.marks)
        await asyncio.sleep(0.02)
        assert len(many.marks) <= looks + 1
        assert revocable_stream.OPEN_STREAMS.watching.done()  # type: ignore[union-attr]

    async def nothing() -> None:
        return None

    run(story())


def test_a_check_runs_in_the_context_of_its_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it tells is recorded as of the stream's caller."""
    whose: ContextVar[str] = ContextVar("whose", default="nobody")
    many, seen = ManyStreams(monkeypatch, 2), list[str]()

    async def tell() -> None:
        seen.append(whose.get())

    def guard(number: int) -> RevocableStream:
        token = whose.set(f"caller {number}")
        made = RevocableStream(forever, many.streams[number].recheck, tell)
        whose.reset(token)
        return made

    monkeypatch.setattr(many, "guard", guard)

    async def story() -> None:
        assert sorted(seen) == ["caller 0", "caller 1"]

    run(many.served(story))


class Due:
    """A stream whose rows have to be read."""

    def __init__(self, on_look: Callable[[], object]) -> None:
        self.on_look, self.context = on_look, copy_context()
        self.problems: list[BaseException] = []

    def is_due(self, mark: Mark | None) -> bool:
        return True

    async def look(self, mark: Mark | None) -> None:
        self.on_look()

    def fail(self, error: BaseException) -> None:
        self.problems.append(error)


def test_a_stream_that_ends_during_a_check_is_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a change the streams are read some at a time; one may end meanwhile."""

    async def unmarked() -> None:
        return None

    monkeypatch.setattr(revocable_stream, "change_mark", unmarked)
    watch, looks = OpenStreams(), list[int]()

    def looked(number: int) -> None:
        looks.append(number)
        if number == 0:
            watch.members.pop(gone)
        if number == 1:
            raise ValueError("a defect")

    streams: list[Any] = [Due(partial(looked, n)) for n in range(AT_ONCE + 2)]
    gone = streams[AT_ONCE]
    watch.members = dict.fromkeys(streams)
    run(watch.look())
    assert looks == [*range(AT_ONCE), AT_ONCE + 1]
    assert [n for n, one in enumerate(streams) if one.problems] == [1]


@pytest.mark.parametrize("stopping", [False, True])
@pytest.mark.parametrize("streaming", [False, True])
def test_an_unchanged_stream_is_due_when_the_server_stops(
    monkeypatch: pytest.MonkeyPatch, stopping: bool, streaming: bool
) -> None:
    monkeypatch.setattr(revocable_stream, "shutting_down", lambda: stopping)
    same: Any = SimpleNamespace(unchanged_since=lambda *marks: True)
    one = RevocableStream(cast(Any, None), same)
    one.streaming = streaming
    assert one.is_due(None) is (stopping and streaming)


@pytest.mark.parametrize(
    ("before", "error", "end"),
    [
        (None, ValueError("new"), "new"),
        (ValueError("old"), ValueError("new"), "old"),
        (None, KeyboardInterrupt(), "None"),
    ],
)
def test_the_first_reason_of_an_end_stays(
    before: Exception | None, error: BaseException, end: str
) -> None:
    async def story() -> None:
        one = RevocableStream(cast(Any, None), cast(Any, None))
        one.running, one.end = anyio.CancelScope(), before
        one.fail(error)
        assert str(one.end) == end and one.running.cancel_called

    run(story())
