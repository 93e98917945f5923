"""Two workers with the same sessions: each passes on what the other waits for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from mcp_bridge.cache.decision_cache import session_notices
from mcp_bridge.http.event_stream import EventStream, sse_event
from mcp_bridge.metrics import prometheus
from mcp_bridge.sessions import registry as registries
from mcp_bridge.sessions import rows
from mcp_bridge.sessions.message_log import MemoryLog
from mcp_bridge.sessions.registry import (
    DELETE_EVERY,
    QUESTION_KEPT,
    OpenSession,
    SessionRegistry,
    StreamOutbound,
)
from mcp_bridge.sessions.sealed_ids import SessionFacts, seal_facts
from tests.support.asgi import run
from tests.support.mcp_in_process import caller, until
from tests.support.session_rows import SessionRows

pytestmark = pytest.mark.once


class SharedLog(MemoryLog):
    """A log that both workers read."""

    shared = True


class Workers:
    """Two registries, and the same session in both."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows = SessionRows(monkeypatch)
        self.log = SharedLog()
        self.cancelled: list[tuple[int, bytes]] = []
        monkeypatch.setattr(registries, "open_log", lambda: self.log)
        monkeypatch.setattr(registries, "WAITS_AFTER", 0.0)
        self.closed: list[str] = []
        """Sessions whose sessions at upstream servers were closed."""
        monkeypatch.setattr(registries, "close_sessions_of_client", self.closed.append)

    def tell(self, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def told() -> None:
            self.here, self.there = SessionRegistry(), SessionRegistry()
            self.mine, self.same = await self.opened()
            self.other = (await self.opened())[1]
            await story()

        run(told())

    async def opened(self) -> tuple[OpenSession, OpenSession]:
        """A session as each of the workers knows it."""
        number = f"{len(self.rows.expiring):032x}"
        facts = SessionFacts(number, 1, "the-client", "2025-11-25", {}, ("n", "1"))
        mine = await self.here.open(facts)
        same = await self.there.find(mine.id, caller())
        assert same is not None and same is not mine
        return mine, same

    def cancel(self, status: int, body: bytes) -> None:
        self.cancelled.append((status, body))

    def in_log(self) -> list[str]:
        return [name for name, (_, found) in self.log.channels.items() if found]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    return Workers(monkeypatch)


def cancelling(request_id: Any) -> dict[str, Any]:
    params = {"requestId": request_id}
    return {"method": "notifications/cancelled", "params": params}


def test_a_cancellation_reaches_the_worker_with_the_call(workers: Workers) -> None:
    async def story() -> None:
        with workers.mine.in_use(5, workers.cancel):
            await workers.there.observe(workers.other, cancelling(5))
            await workers.there.observe(workers.same, cancelling(6))
            await workers.here.read_others()
            assert workers.cancelled == []
            await workers.there.observe(workers.same, cancelling("5"))
            for _ in range(2):
                await workers.here.read_others()
        ((status, body), *_) = workers.cancelled
        assert status == 200 and json.loads(body)["error"]["code"] == -32800
        assert workers.here.busy == set()

    workers.tell(story)


def test_the_end_of_a_session_answers_each_of_its_requests(workers: Workers) -> None:
    async def story() -> None:
        with ExitStack() as running:
            for request_id in (5, "five", "x" * 255):
                running.enter_context(workers.mine.in_use(request_id, workers.cancel))
            workers.here.heard(workers.mine.facts.key)
        text = "Session terminated before the request completed"
        error = {"code": -32603, "message": text}
        assert [(status, json.loads(body)) for status, body in workers.cancelled] == [
            (404, {"jsonrpc": "2.0", "id": request_id, "error": error})
            for request_id in (5, "five", "x" * 255)
        ]

    workers.tell(story)


def test_an_id_is_as_long_as_a_cancellation_that_is_passed_on(
    workers: Workers,
) -> None:
    longest = "x" * 255

    async def story() -> None:
        with workers.mine.in_use(longest, workers.cancel):
            await workers.there.observe(workers.same, cancelling(longest))
            await workers.here.read_others()
        ((status, body),) = workers.cancelled
        error = {"code": -32800, "message": "Request cancelled"}
        assert status == 200
        assert json.loads(body) == {"jsonrpc": "2.0", "id": longest, "error": error}

    workers.tell(story)


@pytest.mark.parametrize(("length", "looks"), [(40, 1), (41, 0)])
def test_only_a_name_as_short_as_that_of_a_question_is_looked_up(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, length: int, looks: int
) -> None:
    """A channel's name has a column's length, and clients choose ids."""
    taken: list[list[str]] = []
    question = "portico-".ljust(length, "x")

    async def take(channels: list[str]) -> list[Any]:
        taken.append(channels)
        return []

    async def story() -> None:
        monkeypatch.setattr(workers.log, "take", take)
        await workers.there.observe(workers.same, {"id": question, "result": {}})
        assert taken == [[workers.mine.channel(question)]] * looks

    workers.tell(story)


@pytest.mark.parametrize("wrong", [None, True, [5], {}, "x" * 256])
def test_a_cancellation_without_a_usable_id_is_dropped(
    workers: Workers, wrong: Any
) -> None:
    async def story() -> None:
        await workers.there.observe(workers.same, cancelling(wrong))
        await workers.there.observe(workers.same, {"method": "notifications/progress"})
        assert workers.in_log() == []

    workers.tell(story)


def test_one_answer_reaches_the_worker_that_asked(workers: Workers) -> None:
    async def story() -> None:
        asked: list[str] = []

        async def ask(number: str) -> None:
            asked.append(number)

        asking = asyncio.create_task(workers.mine.answer_to(ask))
        while not asked:
            await asyncio.sleep(0)
        end, _entries = workers.log.channels[workers.mine.channel(asked[0])]
        assert end > time.monotonic() + 0.9 * QUESTION_KEPT, "a person may take a day"
        for unknown in (1, "portico-x-1", asked[0] + "0", "portico-" + "x" * 99):
            answer = {"id": unknown, "result": {"a": 0}}
            await workers.there.observe(workers.same, answer)
        await workers.there.observe(workers.other, {"id": asked[0], "result": {"a": 0}})
        assert not [name for name in workers.in_log() if name.endswith("/in")]
        for number in (1, 2, 3):
            answer = {"id": asked[0], "result": {"a": number}}
            await workers.there.observe(workers.same, answer)
        assert len(await workers.log.read([workers.mine.channel("in")])) == 1
        await workers.here.read_others()
        assert await asking == {"a": 1} and workers.mine.questions == {}

    workers.tell(story)


def test_of_two_answers_at_once_the_first_counts(workers: Workers) -> None:
    async def story() -> None:
        asked: list[str] = []

        async def ask(number: str) -> None:
            asked.append(number)

        asking = asyncio.create_task(workers.mine.answer_to(ask))
        while not asked:
            await asyncio.sleep(0)
        for number in (1, 2):
            assert workers.mine.apply({"id": asked[0], "result": {"a": number}})
        assert await asking == {"a": 1}

    workers.tell(story)


def test_an_error_answers_a_question_and_so_does_the_end(workers: Workers) -> None:
    async def story() -> None:
        numbers: list[str] = []

        async def ask(number: str) -> None:
            numbers.append(number)

        for end in (False, True):
            asking = asyncio.create_task(workers.mine.answer_to(ask))
            while len(numbers) < 1 + end:
                await asyncio.sleep(0)
            if end:
                workers.here.heard(workers.mine.facts.key)
            else:
                error = {"code": -1, "message": "no", "data": 3}
                workers.mine.apply({"id": numbers[-1], "error": error})
            with pytest.raises(MCPError) as raised:
                await asking
            shown = raised.value.error
            expected = (-32000, "Connection closed", None) if end else (-1, "no", 3)
            assert (shown.code, shown.message, shown.data) == expected

    workers.tell(story)


def test_a_request_under_the_id_of_a_question_is_no_answer(workers: Workers) -> None:
    """Client and server choose their ids themselves."""

    async def story() -> None:
        numbers: list[str] = []

        async def ask(number: str) -> None:
            numbers.append(number)

        asking = asyncio.create_task(workers.mine.answer_to(ask))
        while not numbers:
            await asyncio.sleep(0)
        request = {"id": numbers[0], "method": "ping"}
        assert not workers.mine.apply(request) and not asking.done()
        workers.mine.apply({"id": numbers[0], "result": {"a": 1}})
        assert await asking == {"a": 1}

    workers.tell(story)


def test_of_two_requests_with_one_id_the_later_can_be_cancelled(
    workers: Workers,
) -> None:
    """The end of the first does not hide the second."""

    async def story() -> None:
        first = workers.mine.in_use(5, lambda *about: None)
        first.__enter__()
        with workers.mine.in_use(5, workers.cancel):
            first.__exit__(None, None, None)
            assert workers.here.busy == {workers.mine}
            assert workers.mine.apply(cancelling(5))
        assert len(workers.cancelled) == 1 and workers.here.busy == set()

    workers.tell(story)


def test_an_answer_to_no_question_takes_no_message(workers: Workers) -> None:
    """The name of a question is a channel's, and clients choose ids."""

    async def story() -> None:
        await workers.mine.tell(b"{}")
        for purpose in ("out", "in"):
            await workers.there.observe(workers.same, {"id": purpose, "result": {}})
        assert workers.in_log() == [workers.mine.channel("out")]

    workers.tell(story)


def test_a_session_in_use_is_not_forgotten_for_a_new_one(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        monkeypatch.setattr(registries, "MAX_KNOWN", 2)
        before = list(workers.here.known)
        assert before[0] == workers.mine.id
        with workers.mine.in_use(1, workers.cancel):
            new = (await workers.opened())[0]
            assert set(workers.here.known) == {workers.mine.id, new.id}
        assert workers.cancelled == []

    workers.tell(story)


def test_the_session_used_least_recently_is_forgotten_for_a_new_one(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        monkeypatch.setattr(registries, "MAX_KNOWN", 2)
        first = next(iter(workers.here.known))
        assert await workers.here.find(first, caller()) is not None
        new = (await workers.opened())[0]
        assert set(workers.here.known) == {first, new.id}

    workers.tell(story)


def test_the_end_of_a_session_closes_what_it_opened_elsewhere(
    workers: Workers,
) -> None:
    async def story() -> None:
        workers.here.heard(workers.mine.facts.key)
        workers.here.heard(workers.mine.facts.key)
        workers.here.heard("unknown")
        assert workers.closed == [workers.mine.id]
        assert workers.mine.id not in workers.here.known

    workers.tell(story)


def test_without_changes_to_hear_of_every_message_reads_the_row(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a trigger is missing, nothing tells of the end of a session."""
    monkeypatch.setattr(registries, "tracks_changes", lambda: False)

    async def story() -> None:
        for registry in (workers.here, workers.there):
            before = workers.rows.reads
            for _ in range(2):
                assert await registry.find(workers.mine.id, caller()) is not None
            assert workers.rows.reads == before + 2

    workers.tell(story)


def test_uses_are_written_as_of_the_one_used_first(
    workers: Workers, settings: Any
) -> None:
    """One statement extends them all; none may live longer than its use allows."""
    settings.SESSION_IDLE = 100.0

    async def story() -> None:
        second = (await workers.opened())[0]
        start = min(workers.mine.written_at, second.written_at)
        workers.mine.used_at, second.used_at = start + 20, start + 60
        await workers.here.write_uses(10.0)
        for session in (workers.mine, second):
            expected = start + 20 + rows.lifetime().total_seconds()
            assert workers.rows.expiring[session.facts.key] == expected
        written = dict(workers.rows.expiring)
        workers.mine.used_at = start + 25
        second.used_at = start + 29
        await workers.here.write_uses(10.0)
        assert workers.rows.expiring == written, "nothing is written twice"
        with workers.mine.in_use(1, workers.cancel):
            workers.mine.used_at = 0.0
            await workers.here.write_uses(-1e9)
            assert workers.mine.used_at > start

    workers.tell(story)


def test_a_session_that_ended_unheard_ends_its_stream(workers: Workers) -> None:
    """Its row is read again now and then."""

    async def story() -> None:
        workers.same.stream = stream = EventStream()
        workers.there.set_busy(workers.same)
        workers.rows.end(workers.same.facts.key)
        await workers.there.serve_streams()
        assert workers.same.id in workers.there.known
        workers.same.checked_until = 1.0
        await workers.there.serve_streams()
        assert workers.same.id not in workers.there.known
        assert stream.ended

    workers.tell(story)


def test_the_stream_of_the_other_worker_gets_a_message_once(workers: Workers) -> None:
    async def story() -> None:
        workers.same.stream = EventStream()
        workers.there.set_busy(workers.same)
        await workers.mine.tell(b"{}")
        await workers.other.tell(b"[]")
        for _ in range(2):
            await workers.there.serve_streams()
        assert workers.same.stream.waiting == [sse_event(b"{}")]

    workers.tell(story)


def test_uses_are_written_late_and_together(workers: Workers, settings: Any) -> None:
    settings.SESSION_IDLE = 100.0

    async def story() -> None:
        key = workers.mine.facts.key
        before = workers.rows.expiring[key]
        await workers.here.write_uses(10.0)
        assert workers.rows.expiring[key] == before
        workers.mine.used_at += 20
        await workers.here.write_uses(10.0)
        assert workers.rows.expiring[key] == pytest.approx(before + 20, abs=1)
        assert workers.mine.checked_until == workers.rows.expiring[key]

    workers.tell(story)


@pytest.mark.parametrize("busy", [False, True])
def test_a_use_does_not_spare_the_read_of_a_session_that_may_have_ended(
    workers: Workers, settings: Any, busy: bool
) -> None:
    """Its use is written, but only its row says whether it is live."""
    settings.SESSION_IDLE = 100.0

    async def story() -> None:
        with ExitStack() as running:
            if busy:
                running.enter_context(workers.mine.in_use(1, workers.cancel))
            workers.here.heard("")
            workers.mine.used_at = start = workers.mine.written_at + 20
            await workers.here.write_uses(0.0 if busy else 10.0)
            assert busy or workers.mine.written_at == start
            assert workers.mine.checked_until == 0.0
        workers.rows.end(workers.mine.facts.key)
        assert await workers.here.find(workers.mine.id, caller()) is None
        assert workers.mine.id not in workers.here.known

    workers.tell(story)


def test_a_session_checked_for_longer_stays_so(workers: Workers, settings: Any) -> None:
    settings.SESSION_IDLE = 100.0

    async def story() -> None:
        late = workers.mine.checked_until = workers.mine.checked_until + 1000
        workers.mine.used_at += 20
        await workers.here.write_uses(10.0)
        assert workers.mine.checked_until == late

    workers.tell(story)


def test_a_session_that_another_worker_uses_does_not_expire(workers: Workers) -> None:
    async def story() -> None:
        workers.same.checked_until = 1.0
        reads = workers.rows.reads
        for _ in range(2):
            assert await workers.there.find(workers.same.id, caller()) is workers.same
        assert workers.rows.reads == reads + 1

    workers.tell(story)


def test_an_end_during_the_read_is_read_again(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read may have come before the end."""

    async def story() -> None:
        late = SessionRegistry()
        expiry = workers.rows.expiry

        def while_ending(key: str) -> float:
            late.heard("some session")
            return expiry(key)

        monkeypatch.setattr(rows, "expiry", while_ending)
        found = await late.find(workers.mine.id, caller())
        assert found is not None and found.checked_until == 0.0
        workers.rows.end(workers.mine.facts.key)
        assert await late.find(workers.mine.id, caller()) is None

    workers.tell(story)


def test_an_end_during_the_opening_is_noticed(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker may have ended the session, for one that it opened itself."""

    async def story() -> None:
        add = workers.rows.add

        def while_ending(*about: Any) -> list[str]:
            ended = add(*about)
            workers.rows.end(about[0])
            workers.here.heard(about[0])
            return ended

        monkeypatch.setattr(rows, "add_session", while_ending)
        facts = SessionFacts("e" * 32, 1, "the-client", "2025-11-25", {}, ("n", "1"))
        opened = await workers.here.open(facts)
        assert await workers.here.find(opened.id, caller()) is None

    workers.tell(story)


def test_expired_rows_are_deleted_now_and_then(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.SESSION_IDLE = 0.8
    deleted: list[float] = []
    monkeypatch.setattr(rows, "delete_expired", lambda: deleted.append(time.time()))

    async def story() -> None:
        workers.here.deleted_at -= DELETE_EVERY
        upkeep = asyncio.create_task(workers.here.upkeep())
        await until(lambda: deleted)
        await asyncio.sleep(0.12)
        upkeep.cancel()
        assert len(deleted) == 1, "not each time that uses are written"

    workers.tell(story)


def test_idle_sessions_are_forgotten(workers: Workers, settings: Any) -> None:
    async def story() -> None:
        workers.mine.used_at = time.time() - 2 * settings.SESSION_IDLE
        with workers.mine.in_use(1, workers.cancel):
            workers.mine.used_at = time.time() - 2 * settings.SESSION_IDLE
            workers.here.forget_idle()
            assert workers.mine.id in workers.here.known
        workers.mine.used_at = time.time() - 2 * settings.SESSION_IDLE
        workers.here.forget_idle()
        assert workers.mine.id not in workers.here.known
        assert len(workers.here.known) == 1 and workers.cancelled == []

    workers.tell(story)


def test_an_id_of_a_session_without_a_row_is_unknown(workers: Workers) -> None:
    async def story() -> None:
        facts = SessionFacts("f" * 32, 1, "the-client", "2025-11-25", {}, ("n", "1"))
        assert await workers.here.find(seal_facts(facts), caller()) is None

    workers.tell(story)


def test_a_defect_of_one_message_does_not_stop_the_others(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams are looked after less often, and nothing while nothing is open."""
    monkeypatch.setattr(registries, "POLL_EVERY", 0.0)
    done: list[str] = []

    async def read_others() -> None:
        done.append("read")
        if done.count("read") == 2:
            raise KeyError("a defect")

    async def serve_streams() -> None:
        done.append("streams")

    async def story() -> None:
        monkeypatch.setattr(workers.here, "read_others", read_others)
        monkeypatch.setattr(workers.here, "serve_streams", serve_streams)
        polling = asyncio.create_task(workers.here.poll())
        await asyncio.sleep(0.01)
        assert done == [], "nothing is open"
        with workers.mine.in_use(1, workers.cancel):
            await until(lambda: done.count("read") > 2 * registries.LOOKS_BETWEEN)
            expected = done.count("read") / registries.LOOKS_BETWEEN
            assert abs(done.count("streams") - expected) <= 1
        await until(lambda: not workers.here.wanted.is_set())
        before = len(done)
        await asyncio.sleep(0.01)
        assert len(done) <= before + 1 and not polling.done()
        polling.cancel()

    workers.tell(story)


def test_what_is_open_is_busy_and_used(workers: Workers) -> None:
    """A question that nobody answers keeps its session, and waits."""

    async def story() -> None:
        session, numbers = workers.mine, list[str]()

        async def ask(number: str) -> None:
            numbers.append(number)

        assert not session.waits(time.monotonic())
        session.used_at = 0.0
        asking = asyncio.create_task(session.answer_to(ask))
        await until(lambda: numbers)
        assert workers.here.busy == {session} and session.used_at > 1.0
        assert session.waits(0.0)
        session.apply({"id": numbers[0], "result": {}})
        await asking
        assert workers.here.busy == set() and not session.waits(0.0)
        with session.in_use(1, workers.cancel):
            assert session.waits(time.monotonic() + 1)
            assert not session.waits(time.monotonic() - 1)
        other = workers.there.next_question()
        assert other not in (numbers[0], workers.here.next_question())
        session.used_at = 0.0
        await workers.here.find(session.id, caller())
        assert session.used_at > 1.0, "by a message"

    workers.tell(story)


def test_the_metric_follows_the_known_sessions(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(prometheus, "set_open_sessions", told.append)

    async def story() -> None:
        told.clear()
        known = len(workers.here.known)
        await workers.opened()
        assert told == [known + 1] * 2
        workers.here.forget(workers.mine)
        assert told[-1] == known

    workers.tell(story)


def test_a_stream_here_gets_a_message_at_once(workers: Workers) -> None:
    """And it ends with the session."""

    async def story() -> None:
        workers.mine.stream = stream = EventStream()
        await workers.mine.tell(b"{}")
        assert stream.waiting == [sse_event(b"{}")] and workers.in_log() == []
        workers.here.heard(workers.mine.facts.key)
        assert stream.ended

    workers.tell(story)


def test_another_worker_knows_what_the_client_said_at_first(workers: Workers) -> None:
    """Whether it can be asked depends on that."""

    async def story() -> None:
        for session in (workers.mine, workers.same):
            known = session.connection.client_params
            assert known == session.facts.initialized() and known is not None
            assert known.client_info.name == "n"

    workers.tell(story)


def test_a_session_begins_initialized(workers: Workers) -> None:
    """Tools may ask and tell from its first request on."""

    async def story() -> None:
        assert workers.mine.connection.initialized.is_set()

    workers.tell(story)


def test_numbers_that_json_lacks_are_null() -> None:
    told = registries.encoded_message("n", {"a": float("inf"), "b": float("nan")})
    assert json.loads(told)["params"] == {"a": None, "b": None}


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        ({"code": -5, "message": "no"}, -5, "no"),
        ({"code": True, "message": 7}, -32603, "7"),
        ({"code": "x"}, -32603, ""),
        ("no object", -32603, ""),
    ],
    ids=["whole", "odd", "no-number", "no-object"],
)
def test_a_malformed_error_is_an_error_nevertheless(
    error: Any, code: int, text: str
) -> None:
    async def story() -> None:
        question: Any = asyncio.get_running_loop().create_future()
        registries.settle(question, {"error": error})
        with pytest.raises(MCPError) as raised:
            await question
        shown = raised.value.error
        assert (shown.code, shown.message) == (code, text)

    run(story())


def test_the_last_uses_are_written_when_the_server_stops(workers: Workers) -> None:
    async def story() -> None:
        tasks = asyncio.all_tasks()
        async with workers.here.serving():
            assert workers.here.heard in session_notices
            workers.mine.used_at += 20
        until = workers.mine.used_at + rows.lifetime().total_seconds()
        assert workers.rows.expiring[workers.mine.facts.key] == until
        assert workers.here.heard not in session_notices
        assert asyncio.all_tasks() == tasks

    workers.tell(story)


def test_the_row_of_a_new_session_gets_the_uses_of_this_worker(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that not the one that is used ends, although its row says nothing of it."""
    told: list[tuple[Any, ...]] = []

    def add(*about: Any) -> list[str]:
        told.append(about)
        return []

    async def story() -> None:
        monkeypatch.setattr(rows, "add_session", add)
        workers.mine.used_at = 5.0
        facts = SessionFacts("e" * 32, 4, "the-client", "2025-11-25", {}, ("n", "1"))
        await workers.here.open(facts)
        ((key, user, used),) = told
        assert (key, user) == ("e" * 32, 4)
        assert used[workers.mine.facts.key] == 5.0 and len(used) == 2

    workers.tell(story)


def test_a_stream_that_has_ended_keeps_no_message_from_others(workers: Workers) -> None:
    async def story() -> None:
        stream = EventStream()
        for session in (workers.mine, workers.other):
            await workers.log.append(session.channel("out"), 1, b"{}")
        other = workers.here.known[workers.other.id]
        other.stream = stream
        await workers.here.deliver([workers.mine, other])
        assert stream.waiting == [sse_event(b"{}")]

    workers.tell(story)


def test_a_worker_that_waits_for_nothing_reads_nothing(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a call that lasts, or a question, can have something at another worker."""
    read: list[list[str]] = []

    async def found(channels: list[str], after: int = 0) -> list[Any]:
        read.append(channels)
        return []

    async def story() -> None:
        monkeypatch.setattr(workers.log, "read", found)
        await workers.here.read_others()
        assert read == []
        with workers.mine.in_use(1, workers.cancel):
            await asyncio.sleep(0.001)
            await workers.here.read_others()
        assert read == [[workers.mine.channel("in")]]

    workers.tell(story)


def messages(workers: Workers, stream: EventStream | None) -> list[Any]:
    """What waits for the client: in its stream, or in the log for another worker."""
    if stream is not None:
        return [json.loads(part.partition(b"data: ")[2]) for part in stream.waiting]
    _end, entries = workers.log.channels[workers.mine.channel("out")]
    return [json.loads(entry.content) for entry in entries]


@pytest.mark.parametrize("params", [{"level": "info", "data": [1]}, None])
@pytest.mark.parametrize("here", [True, False])
def test_what_the_server_tells_and_asks_reaches_the_client_whole(
    workers: Workers, params: dict[str, Any] | None, here: bool
) -> None:
    """On a stream of this worker, or through the log."""
    given = {"params": params} if params else {}

    async def story() -> None:
        outbound = StreamOutbound(workers.mine)
        stream = workers.mine.stream = EventStream() if here else None
        await outbound.notify("notifications/x", params)
        asking = asyncio.create_task(outbound.send_raw_request("y/z", params))
        await until(lambda: len(messages(workers, stream)) == 2)
        (number,) = workers.mine.questions
        told = {"jsonrpc": "2.0", "method": "notifications/x", **given}
        asked = {"jsonrpc": "2.0", "id": number, "method": "y/z", **given}
        assert messages(workers, stream) == [told, asked]
        assert workers.mine.apply({"id": number, "result": {"a": 1}})
        assert await asking == {"a": 1}

    workers.tell(story)
