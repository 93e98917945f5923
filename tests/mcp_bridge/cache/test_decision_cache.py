"""The decision cache: its contents, and the check before each use."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine
from types import MappingProxyType
from typing import Any

import pytest
from django.db import DatabaseError

from accounts.models import User
from accounts.tokens.issue import issue_tokens
from accounts.tokens.principal import Principal, Unauthenticated
from mcp_bridge.access.catalogue import Catalogue, read_catalogue
from mcp_bridge.cache import decision_cache
from mcp_bridge.cache.decision_cache import MAX_CATCH_UP, DecisionCache
from mcp_bridge.cache.readers.base import ChangeRow, DatabaseUnavailable, LogPosition
from mcp_bridge.cache.triggers.install import TriggerState, state
from mcp_bridge.cache.watched_tables import UntrackedTable


def principal(name: str, user_id: int = 1, ends_at: float = 0) -> Principal:
    return Principal(
        user_id=user_id,
        username=name,
        client_id="portico",
        jti=f"jti-{name}",
        issued_via="password",
        roles=(),
        grants=MappingProxyType({}),
        token_scopes=frozenset({"mcp"}),
        expires_at=2_000_000_000,
        valid_until=ends_at or time.time() + 60,
    )


class ScriptedReader:
    """A reader with prepared results."""

    def __init__(self) -> None:
        self.position = LogPosition("e", 0)
        self.log: list[ChangeRow] = []
        self.away = False
        self.other = False
        self.asked = self.closed = 0

    def change(self, kind: str, key: str = "") -> None:
        self.position = LogPosition(self.position.epoch, self.position.number + 1)
        self.log.append(ChangeRow(self.position.number, kind, key))

    async def current_position(self) -> LogPosition:
        self.asked += 1
        if self.away:
            raise DatabaseUnavailable("gone")
        return self.position

    async def changes_between(
        self, after: LogPosition, upto: LogPosition
    ) -> list[ChangeRow]:
        """As the protocol requires; takes a moment."""
        await asyncio.sleep(0)
        return [c for c in self.log if after.number < c.number <= upto.number]

    def replaced(self) -> bool:
        return self.other

    def close(self) -> None:
        """Nothing to release."""
        self.closed += 1


class Rows:
    """Rows of a fake database, and the number of reads."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.during: Callable[[], None] = lambda: None
        self.ends_at = 0.0
        self.gates: list[asyncio.Event] = []
        """Each holds one of the next reads after its rows were read."""
        self.verified = 0
        self.missing: list[str] | Exception = []
        self.outside: list[UntrackedTable] = []
        self.marks = ("one",)

    async def in_database(self, work: Any, *args: Any) -> Any:
        """Replaces the thread pool."""
        await asyncio.sleep(0)
        if work is state:
            self.verified += 1
            if isinstance(self.missing, Exception):
                raise self.missing
            return TriggerState(self.missing, self.outside, self.marks)
        self.during()
        catalogue = Catalogue()
        if work is read_catalogue:
            self.asked.append("catalogue")
            await self.held()
            return catalogue
        self.asked.append(args[0])
        found = principal(args[0], user_id=len(args[0]), ends_at=self.ends_at)
        await self.held()
        return (found, catalogue) if work is decision_cache.read_uncached else found

    async def held(self) -> None:
        """Wait, if the test holds this read."""
        if self.gates:
            await self.gates.pop(0).wait()


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    fake_rows = Rows()
    monkeypatch.setattr(decision_cache, "in_database", fake_rows.in_database)
    return fake_rows


def with_cache(
    tell: Callable[[DecisionCache, ScriptedReader], Coroutine[Any, Any, None]],
) -> None:
    """Run one on a new, trusted cache."""

    async def told() -> None:
        script = ScriptedReader()
        memory = DecisionCache(script)
        await memory.verify()
        await tell(memory, script)

    asyncio.run(told())


@pytest.mark.spec("cached rows are never stale")
@pytest.mark.parametrize(
    ("kind", "key", "again"),
    [
        ("user", "3", ["bob"]),
        ("user", "9", []),
        ("token", "jti-bob", ["bob"]),
        ("token", "jti-other", []),
        ("client", "portico", ["alice", "bob"]),
        ("client", "other", []),
        ("people", "", ["alice", "bob"]),
        ("catalogue", "", ["catalogue"]),
        ("all", "", ["alice", "catalogue", "bob"]),
    ],
)
def test_a_change_evicts_only_the_users_it_concerns(
    rows: Rows, kind: str, key: str, again: list[str]
) -> None:
    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        for name in ("alice", "bob", "alice", "bob"):
            await memory.resolve(name)
        assert rows.asked == ["alice", "catalogue", "bob"]
        rows.asked.clear()
        script.change(kind, key)
        for name in ("alice", "bob", "alice", "bob"):
            await memory.resolve(name)
        assert rows.asked == again

    with_cache(tell)


def test_the_raw_token_is_not_cached(rows: Rows) -> None:
    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        await memory.resolve("the-raw-token")
        (key,) = memory.principals.known
        assert len(key) == 32 and b"raw" not in key

    with_cache(tell)


@pytest.mark.parametrize(
    "happen",
    [
        lambda script: setattr(script, "position", LogPosition("other", 5)),
        lambda script: setattr(script, "position", LogPosition("e", 3)),
        lambda script: setattr(script, "position", LogPosition("e", 7 + MAX_CATCH_UP)),
        lambda script: setattr(script, "position", LogPosition("e", 7)),
    ],
    ids=["another epoch", "backwards", "too many", "a gap in the log"],
)
def test_a_gap_in_the_change_log_empties_the_cache(rows: Rows, happen: Any) -> None:
    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        for _ in range(5):
            script.change("user", "77")
        await memory.resolve("alice")
        rows.asked.clear()
        happen(script)
        await memory.resolve("alice")
        await memory.resolve("alice")
        assert rows.asked == ["alice", "catalogue"]

    with_cache(tell)


def test_a_database_outage_empties_the_cache(rows: Rows) -> None:
    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        await memory.resolve("alice")
        script.away = True
        with pytest.raises(DatabaseError):
            await memory.resolve("alice")
        script.away = False
        rows.asked.clear()
        await memory.resolve("alice")
        assert rows.asked == ["alice", "catalogue"]

    with_cache(tell)


@pytest.mark.parametrize("epoch", ["", "e"])
def test_without_change_numbers_nothing_is_cached(rows: Rows, epoch: str) -> None:
    """A trigger is missing, or migrate is running."""

    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        script.position = LogPosition(epoch, 0)
        rows.missing = ["portico_x"] if epoch else []
        await memory.verify()
        await memory.resolve("alice")
        await memory.resolve("alice")
        assert rows.asked == ["alice", "alice"] and len(memory.principals) == 0
        rows.missing = DatabaseError("gone")
        await memory.verify()
        assert memory.trusted is False

    with_cache(tell)


def test_a_missing_trigger_empties_the_cache(rows: Rows) -> None:
    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        await memory.resolve("alice")
        rows.missing = ["portico_x"]
        await memory.verify()
        assert len(memory.principals) == 0
        rows.missing = []
        await memory.verify()
        await memory.resolve("alice")
        assert rows.asked == ["alice", "catalogue"] * 2

    with_cache(tell)


async def turns(count: int = 9) -> None:
    """Let every task that can run do so."""
    for _ in range(count):
        await asyncio.sleep(0)


DURING = [
    ("user", "5", "alice"),
    ("user", "55", ""),
    ("user", "3", ""),
    ("token", "jti-alice", "alice"),
    ("token", "jti-bob", ""),
    ("token", "portico", ""),
    ("token", "5", ""),
    ("client", "portico", "alice"),
    ("client", "other", ""),
    ("client", "jti-alice", ""),
    ("people", "", "alice"),
    ("catalogue", "", "catalogue"),
    ("all", "", "alice catalogue"),
    ("unheard-of", "", "alice"),
]
"""Kind and key of a change, and what it makes stale of `alice` and the rules."""


Resolved = asyncio.Task[tuple[Principal, Catalogue]]


async def request(memory: DecisionCache) -> Resolved:
    """Begin a request of alice's; it waits where its read is held."""
    task = asyncio.create_task(memory.resolve("alice"))
    await turns()
    return task


async def held_read(
    memory: DecisionCache, rows: Rows
) -> tuple[asyncio.Event, Resolved]:
    """Begin a request whose read is held until the event is set."""
    gate = asyncio.Event()
    rows.gates = [gate]
    return gate, await request(memory)


@pytest.mark.spec("cached rows are never stale")
@pytest.mark.parametrize(("kind", "key", "stale"), DURING)
@pytest.mark.parametrize("load", ["alice", "catalogue"])
def test_a_change_during_a_read_prevents_caching(
    rows: Rows, kind: str, key: str, stale: str, load: str
) -> None:
    """The read may precede the change although the check followed it."""

    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        gate, passed = asyncio.Event(), asyncio.Event()
        passed.set()
        rows.gates = [gate] if load == "alice" else [passed, gate]
        first = await request(memory)
        assert rows.asked[-1] == load
        script.change(kind, key)
        await memory.check_for_changes()
        gate.set()
        await first
        rows.asked.clear()
        await memory.resolve("alice")
        again = set(stale.split())
        assert (load in rows.asked) is (load in again)

    with_cache(tell)


@pytest.mark.spec("cached rows are never stale")
def test_a_request_does_not_join_a_read_from_before_a_change(rows: Rows) -> None:
    """Even if the first read is slow and its rows are the old ones."""

    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        await memory.resolve("zoe")
        gate, early = await held_read(memory, rows)
        joined = await request(memory)
        assert rows.asked.count("alice") == 1, "nothing has changed"
        script.change("user", "99")
        late = await request(memory)
        assert late.done() and not early.done() and not joined.done()
        assert rows.asked.count("alice") == 2
        gate.set()
        await asyncio.gather(early, joined)
        assert early.result()[0] is joined.result()[0] is not late.result()[0]

    with_cache(tell)


def test_a_request_does_not_join_a_read_from_before_a_cleared_cache(
    rows: Rows,
) -> None:
    """Disabled triggers leave no number: the position is the same as before."""

    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        await memory.resolve("zoe")
        gate, early = await held_read(memory, rows)
        rows.marks = ("two",)
        await memory.verify()
        late = await request(memory)
        assert late.done() and rows.asked.count("alice") == 2
        gate.set()
        await early
        rows.asked.clear()
        assert (await memory.resolve("alice"))[0] is late.result()[0]
        assert rows.asked == []

    with_cache(tell)


def test_a_read_from_before_a_cleared_cache_is_not_cached(rows: Rows) -> None:
    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        await memory.resolve("zoe")
        gate, early = await held_read(memory, rows)
        memory.clear(memory.position)
        gate.set()
        await early
        assert len(memory.principals) == 0

    with_cache(tell)


def test_the_end_of_an_older_read_leaves_the_newer_one_to_be_joined(
    rows: Rows,
) -> None:
    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        await memory.resolve("zoe")
        older, newer = asyncio.Event(), asyncio.Event()
        rows.gates = [older, newer]
        first = await request(memory)
        script.change("user", "5")
        second = await request(memory)
        older.set()
        await first
        third = await request(memory)
        newer.set()
        await asyncio.gather(second, third)
        assert rows.asked.count("alice") == 2 and memory.loads == {}

    with_cache(tell)


@pytest.mark.parametrize(("others", "cached"), [(2, True), (3, True), (4, False)])
def test_a_read_that_missed_too_many_changes_is_not_cached(
    rows: Rows, monkeypatch: pytest.MonkeyPatch, others: int, cached: bool
) -> None:
    """The list of recent changes is bounded; what fell out may concern it."""
    monkeypatch.setattr(decision_cache, "MAX_CATCH_UP", 3)

    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        await memory.resolve("zoe")
        gate, first = await held_read(memory, rows)
        for _ in range(others):
            script.change("user", "99")
            await memory.check_for_changes()
        gate.set()
        await first
        assert len(memory.principals) == 1 + cached

    with_cache(tell)


@pytest.mark.parametrize(("changes", "cached"), [(3, True), (4, False)])
def test_many_changes_at_once_clear_the_cache(
    rows: Rows, monkeypatch: pytest.MonkeyPatch, changes: int, cached: bool
) -> None:
    monkeypatch.setattr(decision_cache, "MAX_CATCH_UP", 3)

    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        await memory.resolve("alice")
        for _ in range(changes):
            script.change("user", "99")
        await memory.check_for_changes()
        assert len(memory.principals) == cached
        assert memory.position.number == changes

    with_cache(tell)


def test_changes_that_two_requests_read_are_applied_once(rows: Rows) -> None:
    """Both see them missing; the second finds them applied."""

    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        await memory.resolve("alice")
        generation = memory.generation
        script.change("user", "3")
        script.change("user", "4")
        await asyncio.gather(*(memory.check_for_changes() for _ in range(3)))
        assert [change.number for change in memory.recent] == [1, 2]
        assert memory.generation == generation and len(memory.principals) == 1

    with_cache(tell)


def test_changes_are_read_from_the_known_number_to_the_new_one(rows: Rows) -> None:
    """A change that is committed meanwhile is applied by the next check."""

    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        await memory.resolve("alice")
        script.change("user", "99")
        check = asyncio.create_task(memory.check_for_changes())
        await asyncio.sleep(0)
        script.change("user", "5")
        await check
        assert memory.position.number == 1 and len(memory.principals) == 1
        await memory.check_for_changes()
        assert memory.position.number == 2 and len(memory.principals) == 0

    with_cache(tell)


def test_clearing_forgets_everything(rows: Rows) -> None:
    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        script.change("user", "99")
        await memory.resolve("alice")
        script.change("user", "99")
        await memory.resolve("alice")
        before = memory.generation
        memory.clear(LogPosition("new", 7))
        assert memory.generation == before + 1 and not memory.recent
        assert len(memory.principals) == 0 and memory.catalogue is None
        assert memory.position == ("new", 7)

    with_cache(tell)


def test_tables_that_change_without_triggers_are_not_cached(
    rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        await memory.resolve("alice")
        rows.outside = [UntrackedTable("accounts_user", "subscription")]
        await memory.verify()
        rows.asked.clear()
        await memory.resolve("alice")
        await memory.resolve("alice")
        assert rows.asked == ["alice", "alice"] and len(memory.principals) == 0
        assert "accounts_user by subscription" in caplog.text

    with_cache(tell)


def test_disabled_triggers_empty_the_cache(rows: Rows) -> None:
    """Changes made in between have no number."""

    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        await memory.resolve("alice")
        await memory.verify()
        assert len(memory.principals) == 1
        rows.marks = ("two",)
        await memory.verify()
        assert memory.trusted and len(memory.principals) == 0

    with_cache(tell)


def test_another_database_file_empties_the_cache(rows: Rows) -> None:
    """Rows of the old file must not be used."""

    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        await memory.resolve("alice")
        await memory.verify()
        assert script.closed == 0
        script.other = True
        await memory.verify()
        assert len(memory.principals) == 0 and memory.catalogue is None
        assert script.closed == 1

    with_cache(tell)


def test_requests_at_the_same_point_share_one_read(rows: Rows) -> None:
    """Requests with one token share one load until a change."""

    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        await asyncio.gather(*(memory.resolve("alice") for _ in range(10)))
        assert rows.asked == ["alice", "catalogue"]
        script.change("all")
        first = asyncio.create_task(memory.resolve("alice"))
        for _ in range(3):
            await asyncio.sleep(0)
        script.change("all")
        await asyncio.gather(first, memory.resolve("alice"))
        assert rows.asked.count("alice") == 3

    with_cache(tell)


def test_a_refusal_is_not_cached_and_reaches_all_callers(rows: Rows) -> None:
    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        def fail() -> None:
            raise DatabaseError("busy")

        rows.during = fail
        tasks = [memory.resolve("alice") for _ in range(3)]
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, DatabaseError) for error in found)
        rows.during = lambda: None
        assert (await memory.resolve("alice"))[0].username == "alice"

    with_cache(tell)


class Clock:
    """The time of the cache."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.time()
        monkeypatch.setattr(decision_cache, "time", self)

    def time(self) -> float:
        return self.now

    monotonic = time


def test_an_entry_expires_with_its_token(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At that moment; it is read again and refused, or has another end now."""
    clock = Clock(monkeypatch)

    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        rows.ends_at = clock.now + 10
        await memory.resolve("alice")
        clock.now += 9.999
        await memory.resolve("alice")
        assert rows.asked == ["alice", "catalogue"]
        clock.now = rows.ends_at
        rows.ends_at += 10
        await memory.resolve("alice")
        await memory.resolve("alice")
        assert rows.asked == ["alice", "catalogue", "alice"]

    with_cache(tell)


@pytest.mark.parametrize(("left", "reads"), [(0.001, 1), (0.0, 2), (-1.0, 2)])
def test_an_entry_that_ended_while_it_was_read_is_read_again(
    rows: Rows, monkeypatch: pytest.MonkeyPatch, left: float, reads: int
) -> None:
    clock = Clock(monkeypatch)

    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        rows.ends_at = clock.now + left
        await memory.resolve("alice")
        assert rows.asked.count("alice") == reads

    with_cache(tell)


def test_a_client_that_leaves_ends_no_read_of_others(rows: Rows) -> None:
    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        gate, first = await held_read(memory, rows)
        second = await request(memory)
        first.cancel()
        await turns()
        gate.set()
        assert (await second)[0].username == "alice"
        assert rows.asked.count("alice") == 1

    with_cache(tell)


def test_a_failed_read_that_nobody_awaits_is_not_logged(rows: Rows) -> None:
    """asyncio would log it as a bug of the server."""
    logged: list[object] = []

    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: logged.append(context))
        gate, failed = asyncio.Event(), DatabaseError("busy")

        async def failing() -> None:
            await gate.wait()
            raise failed

        held = rows.held
        rows.held = failing  # type: ignore[method-assign]
        first = await request(memory)
        first.cancel()
        await turns()
        gate.set()
        await turns()
        assert memory.loads == {}
        rows.held = held  # type: ignore[method-assign]
        del first
        gc.collect()
        await turns()

    with_cache(tell)
    assert logged == []


def test_caching_goes_on_while_nothing_changes(
    rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        await memory.resolve("alice")
        generation = memory.generation
        await memory.verify()
        assert memory.generation == generation and len(memory.principals) == 1

    with_cache(tell)
    assert caplog.text == ""


def test_the_end_of_caching_is_logged_once_with_its_remedy(
    rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        rows.missing = ["portico_b", "portico_c"]
        for _ in range(3):
            await memory.verify()

    with_cache(tell)
    (record,) = caplog.records
    assert record.levelname == "ERROR" and "(portico_b)" in record.message
    assert "Run `manage.py migrate`" in record.message


@pytest.mark.parametrize("wrong", ["missing", "outside", "away"])
def test_a_cache_is_trusted_only_with_all_triggers(rows: Rows, wrong: str) -> None:
    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        assert memory.trusted and memory.marks == ("one",)
        if wrong == "missing":
            rows.missing = ["portico_x"]
        elif wrong == "outside":
            rows.outside = [UntrackedTable("accounts_user", "inheritance")]
        else:
            rows.missing = DatabaseError("away")
        await memory.verify()
        assert not memory.trusted
        rows.missing, rows.outside = [], []
        await memory.verify()
        assert memory.trusted

    with_cache(tell)


def test_nothing_is_trusted_before_the_first_check(rows: Rows) -> None:
    async def tell() -> None:
        memory = DecisionCache(ScriptedReader())
        await memory.resolve("alice")
        assert not memory.trusted and len(memory.principals) == 0

    asyncio.run(tell())


@pytest.mark.parametrize(
    ("trusted", "epoch", "tracked"),
    [(True, "e", True), (True, "", False), (False, "e", False), (False, "", False)],
)
def test_changes_are_tracked_with_all_triggers_and_a_position(
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
    trusted: bool,
    epoch: str,
    tracked: bool,
) -> None:
    """The counter's row may be missing; sessions are then read at each message."""
    memory, script = DecisionCache(ScriptedReader()), LogPosition(epoch, 1)
    memory.trusted, memory.position = trusted, script
    monkeypatch.setattr(memory.reader, "position", script)
    monkeypatch.setattr(decision_cache, "decision_cache", memory)
    assert decision_cache.tracks_changes() is tracked
    assert (asyncio.run(memory.mark()) is not None) is tracked
    monkeypatch.setattr(decision_cache, "decision_cache", None)
    assert decision_cache.tracks_changes() is False


def test_a_worker_verifies_often_and_evicts_seldom(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decision_cache.VERIFY_EVERY == 5.0 and decision_cache.EVICT_EVERY == 300.0
    monkeypatch.setattr(decision_cache, "VERIFY_EVERY", 0.0)
    clock = Clock(monkeypatch)

    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        evicted: list[int] = []
        began, rows.verified = clock.now, 0

        def evict_idle() -> None:
            evicted.append(rows.verified)

        memory.principals.evict_idle = evict_idle  # type: ignore[method-assign]
        upkeep = asyncio.create_task(memory.keep_verifying())
        while rows.verified < 130:
            await asyncio.sleep(0)
            clock.now = began + 5 * rows.verified
        upkeep.cancel()
        assert len(evicted) == 2
        assert 59 <= evicted[0] <= 61 and 119 <= evicted[1] <= 122

    with_cache(tell)


def test_the_bounds_of_the_cache() -> None:
    assert decision_cache.MAX_PRINCIPALS == 20_000
    assert decision_cache.MAX_CATCH_UP == 1_000
    memory = DecisionCache(ScriptedReader())
    assert memory.principals.max_size == 20_000 and memory.recent.maxlen == 1_000


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ScriptedReader:
    """The reader of a cache that the server starts."""
    reader = ScriptedReader()
    monkeypatch.setattr(decision_cache, "open_reader", lambda: reader)
    return reader


def test_a_server_caches_until_it_stops(
    rows: Rows, script: ScriptedReader, caplog: pytest.LogCaptureFixture
) -> None:
    async def tell() -> None:
        async with decision_cache.caching_decisions() as memory:
            assert decision_cache.decision_cache is memory and memory.trusted
            assert script.asked == 1, "the first read records which file is open"
            upkeep = asyncio.all_tasks() - {asyncio.current_task()}
            assert len(upkeep) == 1
            for _ in range(2):
                found = await decision_cache.resolve_token("alice")
                assert found[0].username == "alice"
            assert rows.asked == ["alice", "catalogue"]
        assert script.closed == 1 and decision_cache.decision_cache is None
        assert all(task.done() for task in upkeep)

    asyncio.run(tell())
    assert caplog.text == ""


def test_a_server_without_triggers_starts_and_says_so(
    rows: Rows, script: ScriptedReader, caplog: pytest.LogCaptureFixture
) -> None:
    rows.missing, script.away = ["portico_x"], True

    async def tell() -> None:
        async with decision_cache.caching_decisions() as memory:
            assert not memory.trusted
            raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(tell())
    assert "Caching is disabled" in caplog.text and script.closed == 1
    assert decision_cache.decision_cache is None


def test_without_a_server_every_read_is_new(rows: Rows, script: ScriptedReader) -> None:
    async def tell() -> None:
        for _ in range(2):
            found = await decision_cache.resolve_token("alice")
            assert found[0].username == "alice"
        assert await decision_cache.database_unavailable() is False

    asyncio.run(tell())
    assert rows.asked == ["alice", "alice"] and script.asked == 0
    assert decision_cache.replaced() is False


def test_a_server_knows_whether_its_database_answers(
    rows: Rows, script: ScriptedReader
) -> None:
    async def tell() -> None:
        async with decision_cache.caching_decisions() as memory:
            assert await decision_cache.database_unavailable() is False
            assert decision_cache.replaced() is False
            await memory.resolve("alice")
            script.away = script.other = True
            assert await decision_cache.database_unavailable() is True
            assert len(memory.principals) == 0
            assert decision_cache.replaced() is True
            with pytest.raises(DatabaseUnavailable):
                await decision_cache.resolve_token("alice")

    asyncio.run(tell())


def test_an_uncached_read_has_the_principal_and_the_rules(alice: User) -> None:
    raw = issue_tokens(alice, issued_via="password", scope="mcp").access
    who, rules = decision_cache.read_uncached(raw)
    assert who.username == "alice" and dict(rules) == dict(read_catalogue())
    with pytest.raises(Unauthenticated):
        decision_cache.read_uncached("nothing")


def test_a_worker_evicts_unused_entries(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_cache, "VERIFY_EVERY", 0.0)
    monkeypatch.setattr(decision_cache, "EVICT_EVERY", 0.0)

    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        memory.principals.put(b"ann", principal("ann"))
        upkeep = asyncio.create_task(memory.keep_verifying())
        while memory.principals.known:
            await asyncio.sleep(0)
        upkeep.cancel()

    with_cache(tell)
