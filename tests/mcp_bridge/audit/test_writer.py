"""Group commits of call events: who waits for a commit, and no event is lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import (
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    connection,
)

from accounts.models import AuditEvent, IssuedToken, User
from accounts.tokens.issue import issue_tokens
from mcp_bridge.audit import bulk_insert, last_used, writer
from mcp_bridge.audit.bulk_insert import CallEvent, Use
from mcp_bridge.audit.last_used import LastUsedTracker
from mcp_bridge.audit.writer import AuditWriter
from mcp_bridge.metrics import prometheus
from tests.support.mcp_in_process import until


def event(name: str = "tool.called") -> CallEvent:
    return CallEvent(at=1_800_000_000.25, action=name, decision="allowed", reason="ok")


class FakeTable:
    """Replaces the table: the committed groups, or the error to raise."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.error: Exception | None = None
        self.poison = ""

    def insert(self, events: list[CallEvent]) -> None:
        """Commit, unless the test has set an error."""
        time.sleep(0.001)
        if self.error is not None:
            raise self.error
        if any(e.action == self.poison for e in events):
            raise DataError("does not fit")
        self.groups.append([e.action for e in events])

    @property
    def names(self) -> list[str]:
        return [name for group in self.groups for name in group]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> FakeTable:
    fake = FakeTable()
    monkeypatch.setattr(bulk_insert, "insert_events", fake.insert)
    return fake


def run_writer(
    durability: str, tell: Callable[[AuditWriter], Coroutine[Any, Any, None]]
) -> None:
    """Run one with a new recorder, and close it."""

    async def told() -> None:
        writer = AuditWriter(durability)
        try:
            await tell(writer)
        finally:
            await writer.close()

    asyncio.run(told())


@pytest.mark.spec("every answered call is in the audit log")
def test_durable_waits_for_its_commit_and_shares_it(table: FakeTable) -> None:
    async def tell(made: AuditWriter) -> None:
        await asyncio.gather(*(made.write(event(f"e{n}")) for n in range(50)))
        assert sorted(table.names) == sorted(f"e{n}" for n in range(50))
        assert len(table.groups) < 5

    run_writer("durable", tell)


def test_batch_waits_for_nothing_and_closing_commits_the_rest(table: FakeTable) -> None:
    async def tell(made: AuditWriter) -> None:
        for n in range(20):
            await made.write(event(f"e{n}"))
        assert table.groups == []

    run_writer("batch", tell)
    assert table.names == [f"e{n}" for n in range(20)]


def test_without_durability_nothing_is_written(table: FakeTable) -> None:
    async def tell(made: AuditWriter) -> None:
        await made.write(event())

    run_writer("off", tell)
    assert table.groups == []


def test_a_failed_commit_reaches_every_waiting_call(table: FakeTable) -> None:
    """503, never a response without its event."""

    async def tell(made: AuditWriter) -> None:
        table.error = OperationalError("gone")
        waiting = [made.write(event()) for _ in range(3)]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in found] == [OperationalError] * 3
        table.error = None
        await made.write(event("after"))
        assert table.names == ["after"]

    run_writer("durable", tell)


def test_an_invalid_event_does_not_lose_others(
    table: FakeTable, caplog: pytest.LogCaptureFixture
) -> None:
    table.poison = "bad"
    names = ("good", "bad", "better")

    async def tell(made: AuditWriter) -> None:
        waiting = [made.write(event(name)) for name in names]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in found] == [type(None), DataError, type(None)]

    run_writer("durable", tell)
    assert table.names == ["good", "better"]

    async def batch(made: AuditWriter) -> None:
        for name in names:
            await made.write(event(name))
        while len(table.names) < 4:
            await asyncio.sleep(0.01)

    run_writer("batch", batch)
    assert "An audit event is lost" in caplog.text


def test_a_full_queue_delays_calls_then_refuses_them(
    table: FakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "QUEUE_LIMIT", 5)
    monkeypatch.setattr(writer, "BATCH_EVERY", 0.001)
    monkeypatch.setattr(writer, "RETRY_AFTER", 0.001)

    async def tell(made: AuditWriter) -> None:
        await asyncio.gather(*(made.write(event(f"e{n}")) for n in range(30)))
        while len(table.names) < 30:
            await asyncio.sleep(0.001)
        table.error = OperationalError("gone")
        waiting = [made.write(event()) for _ in range(30)]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        refused = [error for error in found if isinstance(error, Error)]
        assert refused and len(made.queue) <= 5
        queued = 30 - len(refused)
        table.error = None
        while len(table.names) < 30 + queued:
            await asyncio.sleep(0.001)

    run_writer("batch", tell)


@pytest.mark.parametrize("closing", [False, True])
def test_a_failed_batch_is_written_before_what_came_meanwhile(
    monkeypatch: pytest.MonkeyPatch, closing: bool
) -> None:
    """Rows of one second are shown in the order of their ids."""
    begun, may_fail, written = threading.Event(), threading.Event(), list[str]()

    def insert(events: list[CallEvent]) -> None:
        if not begun.is_set():
            begun.set()
            may_fail.wait(20)
            raise OperationalError("gone")
        written.extend(one.action for one in events)

    monkeypatch.setattr(bulk_insert, "insert_events", insert)
    monkeypatch.setattr(writer, "BATCH_EVERY", 60.0 if closing else 0.001)
    monkeypatch.setattr(writer, "RETRY_AFTER", 0.001)

    async def tell(made: AuditWriter) -> None:
        await asyncio.gather(*(made.write(event(name)) for name in "ab"))
        ending = asyncio.create_task(made.close()) if closing else None
        await asyncio.to_thread(begun.wait, 20)
        await made.write(event("c"))
        may_fail.set()
        await (ending or until(lambda: len(written) == 3))
        assert written == ["a", "b", "c"]

    run_writer("batch", tell)


@pytest.mark.parametrize("durability", ["durable", "batch"])
def test_a_commit_that_hangs_does_not_block_callers(
    monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    """With a frozen database, a refused event is not written later."""
    frozen, written = threading.Event(), list[str]()

    def insert(events: list[CallEvent]) -> None:
        frozen.wait(20)
        written.extend(event.action for event in events)

    monkeypatch.setattr(bulk_insert, "insert_events", insert)
    monkeypatch.setattr(writer, "COMMIT_TIMEOUT", 0.02)
    monkeypatch.setattr(writer, "QUEUE_LIMIT", 2)

    async def tell(made: AuditWriter) -> None:
        first = asyncio.create_task(made.write(event("first")))
        while not made.busy:
            await asyncio.sleep(0)
        later = [made.write(event(f"later-{n}")) for n in range(3)]
        ends = await asyncio.gather(first, *later, return_exceptions=True)
        kept = 0 if durability == "durable" else 3
        assert [isinstance(e, OperationalError) for e in ends].count(False) == kept
        frozen.set()

    run_writer(durability, tell)
    lost = {"later-0", "later-1", "later-2"} if durability == "durable" else {"later-2"}
    assert "first" in written and not lost & set(written)


def test_events_lost_at_shutdown_are_logged(
    table: FakeTable, caplog: pytest.LogCaptureFixture
) -> None:
    table.error = OperationalError("gone")

    async def tell(made: AuditWriter) -> None:
        await made.write(event())

    run_writer("batch", tell)
    assert "Of the audit, 1 event waits for a commit" in caplog.text


def test_closing_writes_nothing_twice(
    table: FakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scheduled commit may run during the last one."""
    monkeypatch.setattr(writer, "BATCH_EVERY", 0.0005)

    async def tell(made: AuditWriter) -> None:
        for number in range(20):
            await made.write(event(f"e{number}"))

    for _ in range(20):
        run_writer("batch", tell)
    assert len(table.names) == 400


def test_an_event_is_written_though_its_caller_left(table: FakeTable) -> None:
    """A client that disconnects does not remove its event."""

    async def tell(made: AuditWriter) -> None:
        task = asyncio.create_task(made.write(event("left")))
        await asyncio.sleep(0)
        task.cancel()
        await made.write(event("stayed"))

    run_writer("durable", tell)
    assert sorted(table.names) == ["left", "stayed"]


def test_events_reach_every_column(db: None) -> None:
    """Columns unknown to the writer get their defaults."""
    event = CallEvent(
        at=1_800_000_000.25,
        action="tool.called",
        decision="allowed",
        reason="granted",
        actor="alice",
        actor_id=7,
        object='tool "tab\\ted"',
        via="é",
        duration_ms=1.5,
        request_id="r1",
    )
    bulk_insert.insert_events([event, event._replace(actor_id=None)])
    first, second = AuditEvent.objects.filter(request_id="r1").order_by("pk")
    assert first.at == datetime.fromtimestamp(1_800_000_000.25, UTC)
    for name in CallEvent._fields[1:]:
        assert getattr(first, name) == getattr(event, name)
    assert second.actor_id is None and first.changes == {}


def test_very_many_events_take_several_statements(db: None) -> None:
    """SQLite limits the values of a statement."""
    bulk_insert.insert_events([event("many")] * (bulk_insert.MAX_ROWS + 3))
    assert AuditEvent.objects.filter(action="many").count() == bulk_insert.MAX_ROWS + 3


def test_an_idle_connection_is_checked_before_use(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database restart must not cost a later request a 503."""
    looked = []

    def is_usable() -> bool:
        looked.append(1)
        return True

    monkeypatch.setattr(bulk_insert, "last_at", time.monotonic() - 2 * bulk_insert.IDLE)
    monkeypatch.setattr(connection, "is_usable", is_usable)
    bulk_insert.insert_events([event("idle")])
    bulk_insert.insert_events([event("idle")])
    assert looked == [1]


def test_last_uses_are_noted_once_a_minute(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[list[Use]] = []

    async def in_database(work: Any, noted: list[Use]) -> None:
        written.append(noted)
        if len(written) > 1:
            raise OperationalError("gone")

    monkeypatch.setattr(last_used, "in_database", in_database)
    monkeypatch.setattr(last_used, "WRITE_DELAY", 0.001)
    monkeypatch.setattr(last_used, "MIN_TRACKED", 2)

    async def tell() -> None:
        tracker = LastUsedTracker()
        for _ in range(3):
            tracker.track("a", "::1")
        tracker.track("b", "::2")
        while not written:
            await asyncio.sleep(0.001)
        tracker.tracked["a"] = 0.0
        tracker.track("c", "::3")
        assert tracker.tracked.keys() == {"b", "c"}
        await tracker.close()
        await tracker.close()

    asyncio.run(tell())
    assert [[use.jti for use in group] for group in written] == [["a", "b"], ["c"]]
    row = issue_tokens(alice, issued_via="password", scope="mcp").row
    bulk_insert.update_last_used([Use(row.jti, 1_800_000_000.0, "::9")])
    found = IssuedToken.objects.get(pk=row.pk)
    assert found.last_used_from == "::9"
    assert found.last_used_at == datetime.fromtimestamp(1_800_000_000, UTC)


def test_the_bounds_of_the_writer() -> None:
    assert (writer.BATCH_SIZE, writer.QUEUE_LIMIT) == (1_000, 10_000)
    assert (writer.BATCH_EVERY, writer.RETRY_AFTER) == (0.05, 1.0)
    assert (writer.COMMIT_TIMEOUT, writer.LAST_TRIES) == (8.0, 3)


@pytest.mark.parametrize("durability", ["durable", "batch"])
def test_a_commit_has_at_most_one_batch(
    table: FakeTable, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    """The rest follows in the next commits, in order."""
    monkeypatch.setattr(writer, "BATCH_SIZE", 2)
    monkeypatch.setattr(writer, "BATCH_EVERY", 0.001)

    async def tell(made: AuditWriter) -> None:
        await asyncio.gather(*(made.write(event(f"e{n}")) for n in range(5)))
        while len(table.names) < 5:
            await asyncio.sleep(0.001)

    run_writer(durability, tell)
    assert table.groups == [["e0", "e1"], ["e2", "e3"], ["e4"]]


def test_events_wait_for_a_failed_batch_and_keep_their_order(
    table: FakeTable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer, "BATCH_EVERY", 0.001)
    monkeypatch.setattr(writer, "RETRY_AFTER", 0.02)

    async def tell(made: AuditWriter) -> None:
        table.error = OperationalError("gone")
        for n in range(3):
            await made.write(event(f"e{n}"))
        while "could not be committed yet: gone" not in caplog.text:
            await asyncio.sleep(0.001)
        table.error = None
        await made.write(event("later"))
        while not table.names:
            await asyncio.sleep(0.001)

    run_writer("batch", tell)
    assert table.names == ["e0", "e1", "e2", "later"]


class Schedule:
    """Notes the delays with which a loop was asked to commit."""

    def __init__(self, made: AuditWriter, monkeypatch: pytest.MonkeyPatch) -> None:
        self.delays: list[float] = []
        monkeypatch.setattr(made, "start", self.start)

    def start(self, delay: float = 0.0) -> None:
        self.delays.append(delay)


@pytest.mark.parametrize(
    ("durability", "error", "delay"),
    [
        ("durable", None, 0.0),
        ("durable", OperationalError("gone"), 0.0),
        ("batch", None, writer.BATCH_EVERY),
        ("batch", OperationalError("gone"), writer.RETRY_AFTER),
    ],
)
def test_the_next_commit_follows_soon_or_after_a_pause(
    table: FakeTable,
    monkeypatch: pytest.MonkeyPatch,
    durability: str,
    error: Exception | None,
    delay: float,
) -> None:
    """A database that is away is not asked again at once."""
    monkeypatch.setattr(writer, "BATCH_SIZE", 1)

    async def tell(made: AuditWriter) -> None:
        schedule = Schedule(made, monkeypatch)
        table.error = error
        waiting = [asyncio.ensure_future(made.write(event(f"e{n}"))) for n in range(2)]
        await asyncio.sleep(0)
        first = 0.0 if durability == "durable" else writer.BATCH_EVERY
        assert schedule.delays == [first, first]
        made.commit()
        while made.busy:
            await asyncio.sleep(0.001)
        assert schedule.delays[2:] == [delay]
        assert len(made.queue) == (2 if durability == "batch" and error else 1)
        monkeypatch.undo()
        table.error = None
        monkeypatch.setattr(bulk_insert, "insert_events", table.insert)
        made.start()
        await asyncio.gather(*waiting, return_exceptions=True)

    run_writer(durability, tell)


def test_events_that_come_before_a_commit_share_it(table: FakeTable) -> None:
    async def tell(made: AuditWriter) -> None:
        tasks = [asyncio.create_task(made.write(event(name))) for name in "ab"]
        await asyncio.sleep(0)
        assert made.started and not made.busy and len(made.queue) == 2
        await asyncio.gather(*tasks)
        assert table.groups == [["a", "b"]] and not made.started and not made.busy

    run_writer("durable", tell)


def test_the_queue_is_shown_in_the_metrics(
    table: FakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[int] = []
    monkeypatch.setattr(prometheus, "set_audit_queue", shown.append)

    async def tell(made: AuditWriter) -> None:
        await asyncio.gather(*(made.write(event()) for _ in range(3)))

    run_writer("durable", tell)
    assert shown == [3, 0]


def test_an_invalid_value_costs_its_own_event_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Any other error concerns all of them."""
    asked: list[list[str]] = []
    errors: dict[str, Exception] = {
        "bad": DataError("too long"),
        "twin": IntegrityError("twice"),
    }

    def insert(events: list[CallEvent]) -> None:
        asked.append([e.action for e in events])
        for one in events:
            if one.action in errors:
                raise errors[one.action]

    monkeypatch.setattr(bulk_insert, "insert_events", insert)
    events = [event(name) for name in ("a", "bad", "b", "twin")]
    found = writer.insert_or_isolate(events)
    assert found == {1: errors["bad"], 3: errors["twin"]}
    assert asked == [["a", "bad", "b", "twin"], ["a"], ["bad"], ["b"], ["twin"]]
    asked.clear()
    assert writer.insert_or_isolate(events[:1]) == {} and asked == [["a"]]
    errors["a"] = OperationalError("gone")
    with pytest.raises(OperationalError):
        writer.insert_or_isolate(events)
    errors = {"bad": OperationalError("gone")}
    with pytest.raises(OperationalError):
        writer.insert_singly(events)


@pytest.mark.parametrize(
    ("kind", "isolated"),
    [
        (DataError, True),
        (IntegrityError, True),
        (OperationalError, False),
        (InterfaceError, False),
        (InternalError, False),
        (ProgrammingError, False),
    ],
)
def test_only_errors_of_values_are_isolated(
    monkeypatch: pytest.MonkeyPatch, kind: type[Error], isolated: bool
) -> None:
    """In a batch whose only error is of this kind."""
    asked: list[list[str]] = []
    error = kind("refused")

    def insert(events: list[CallEvent]) -> None:
        asked.append([e.action for e in events])
        if "bad" in asked[-1]:
            raise error

    monkeypatch.setattr(bulk_insert, "insert_events", insert)
    events = [event(name) for name in ("a", "bad", "b")]
    if isolated:
        assert writer.insert_or_isolate(events) == {1: error}
        assert asked[1:] == [["a"], ["bad"], ["b"]]
        return
    with pytest.raises(kind):
        writer.insert_or_isolate(events)
    assert asked == [["a", "bad", "b"]]


@pytest.mark.parametrize("failures", [2, 3])
def test_closing_tries_three_times(
    table: FakeTable,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failures: int,
) -> None:
    left = [OperationalError("gone")] * failures
    # On a busy machine the timer would try once before the end.
    monkeypatch.setattr(writer, "BATCH_EVERY", 60.0)

    def insert(events: list[CallEvent]) -> None:
        if left:
            raise left.pop()
        table.insert(events)

    monkeypatch.setattr(bulk_insert, "insert_events", insert)

    async def tell(made: AuditWriter) -> None:
        await made.write(event("a"))
        await made.write(event("b"))

    run_writer("batch", tell)
    assert caplog.text.count("2 events wait for a commit: gone") == failures
    assert table.names == ([] if failures == 3 else ["a", "b"])


def test_a_server_writes_its_audit_until_it_stops(
    table: FakeTable, settings: Any
) -> None:
    settings.AUDIT_DURABILITY = "batch"

    async def tell() -> None:
        async with writer.writing_audit() as made:
            assert writer.audit_writer is made
            assert not made.durable and not made.off
            await writer.write_event(event("queued"))
            assert table.names == []
            raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(tell())
    assert table.names == ["queued"] and writer.audit_writer is None


def test_a_commit_that_was_scheduled_does_nothing_after_the_close(
    table: FakeTable,
) -> None:
    problems: list[Any] = []

    async def tell() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: problems.append(context)
        )
        made = AuditWriter("batch")
        await made.write(event("queued"))
        await made.close()
        await asyncio.sleep(2 * writer.BATCH_EVERY)

    asyncio.run(tell())
    assert table.groups == [["queued"]] and not problems


def test_without_a_server_each_event_commits_alone(
    table: FakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def in_database(work: Any, *args: Any) -> None:
        work(*args)

    monkeypatch.setattr(writer, "in_database", in_database)
    asyncio.run(writer.write_event(event("alone")))
    assert table.groups == [["alone"]]


@pytest.mark.parametrize(
    ("durability", "durable", "off"),
    [("durable", True, False), ("batch", False, False), ("off", False, True)],
)
def test_the_setting_decides_what_a_response_waits_for(
    durability: str, durable: bool, off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = AuditWriter(durability)
    assert (made.durable, made.off) == (durable, off)
    made.thread.shutdown()
    monkeypatch.setattr(writer, "audit_writer", made)
    assert writer.records_messages() == (not off)
    monkeypatch.setattr(writer, "audit_writer", None)
    assert writer.records_messages()


def test_a_caller_that_left_the_full_queue_is_skipped(
    table: FakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place goes to the next one."""
    monkeypatch.setattr(writer, "QUEUE_LIMIT", 1)

    async def tell(made: AuditWriter) -> None:
        tasks = [asyncio.create_task(made.write(event(f"e{n}"))) for n in range(3)]
        await asyncio.sleep(0)
        assert len(made.overflow) == 2
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert table.names == ["e0", "e2"] and not made.overflow

    run_writer("durable", tell)


@pytest.mark.parametrize(
    ("error", "woken", "left"), [(None, 2, 2), (OperationalError("gone"), 4, 0)]
)
def test_a_commit_wakes_as_many_callers_as_there_is_room_for(
    table: FakeTable,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception | None,
    woken: int,
    left: int,
) -> None:
    """Otherwise callers that come later would pass those that wait."""
    monkeypatch.setattr(writer, "QUEUE_LIMIT", 3)

    async def tell(made: AuditWriter) -> None:
        made.queue.append(writer.QueuedEvent(event(), None))
        loop = asyncio.get_running_loop()
        waiting: list[asyncio.Future[None]] = [loop.create_future() for _ in range(5)]
        waiting[0].cancel()  # its caller has left
        made.overflow.extend(waiting)
        made._release_waiters(error)
        assert [one.done() for one in waiting] == [True] * (1 + woken) + [False] * left
        assert list(made.overflow) == waiting[1 + woken :]
        for one in waiting[1 : 1 + woken]:
            assert one.exception() is error

    run_writer("batch", tell)


def test_closing_waits_for_a_commit_that_runs(
    table: FakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tell(made: AuditWriter) -> None:
        slow = threading.Event()
        monkeypatch.setattr(bulk_insert, "insert_events", lambda events: slow.wait(5))
        await made.write(event("slow"))
        made.commit()
        assert made.busy and not made.queue
        closing = asyncio.create_task(made.close())
        await asyncio.sleep(5 * writer.CLOSE_POLL)
        assert not closing.done()
        slow.set()
        await closing
        assert not made.busy

    run_writer("batch", tell)


def test_only_events_that_were_refused_are_logged_as_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def tell(made: AuditWriter) -> None:
        batch = [writer.QueuedEvent(event(name), None) for name in ("kept", "lost")]
        made._resolve_batch(batch, {1: DataError("too long")})
        assert "too long" in caplog.text and "'lost'" in caplog.text
        assert "'kept'" not in caplog.text

    run_writer("batch", tell)
