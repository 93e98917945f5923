"""The decision cache: its contents, and the check before each use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from types import MappingProxyType
from typing import Any

import pytest
from django.db import DatabaseError

from accounts.tokens.principal import Principal
from mcp_bridge.access.catalogue import Catalogue, read_catalogue
from mcp_bridge.cache import decision_cache
from mcp_bridge.cache.decision_cache import MAX_CATCH_UP, DecisionCache
from mcp_bridge.cache.principal_cache import PrincipalCache
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

    def change(self, kind: str, key: str = "") -> None:
        self.position = LogPosition(self.position.epoch, self.position.number + 1)
        self.log.append(ChangeRow(self.position.number, kind, key))

    async def current_position(self) -> LogPosition:
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


class Rows:
    """Rows of a fake database, and the number of reads."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.during: Callable[[], None] = lambda: None
        self.ends_at = 0.0
        self.missing: list[str] | Exception = []
        self.outside: list[UntrackedTable] = []
        self.marks = ("one",)

    async def in_database(self, work: Any, *args: Any) -> Any:
        """Replaces the thread pool."""
        await asyncio.sleep(0)
        if work is state:
            if isinstance(self.missing, Exception):
                raise self.missing
            return TriggerState(self.missing, self.outside, self.marks)
        self.during()
        if work is read_catalogue:
            self.asked.append("catalogue")
            return Catalogue()
        self.asked.append(args[0])
        found = principal(args[0], user_id=len(args[0]), ends_at=self.ends_at)
        return (found, Catalogue()) if work is decision_cache.read_uncached else found


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


@pytest.mark.parametrize(("kind", "stale"), [("user", True), ("catalogue", False)])
def test_a_change_during_a_read_prevents_caching(
    rows: Rows, monkeypatch: pytest.MonkeyPatch, kind: str, stale: bool
) -> None:
    """The read may precede the change although the check followed it."""

    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        await memory.resolve("zoe")

        def during() -> None:
            rows.during = lambda: None
            script.change(kind, "5" if kind == "user" else "")
            asyncio.get_running_loop().create_task(memory.check_for_changes())

        rows.during = during
        slow = rows.in_database

        async def slower(work: Any, *args: Any) -> Any:
            found = await slow(work, *args)
            for _ in range(5):
                await asyncio.sleep(0)
            return found

        monkeypatch.setattr(decision_cache, "in_database", slower)
        await memory.resolve("alice")
        rows.asked.clear()
        await memory.resolve("alice")
        assert ("alice" in rows.asked) is stale

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
        script.other = True
        await memory.verify()
        assert len(memory.principals) == 0 and memory.catalogue is None

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


def test_an_entry_expires_with_its_token(rows: Rows) -> None:
    async def tell(memory: DecisionCache, script: ScriptedReader) -> None:
        rows.ends_at = time.time() + 0.05
        await memory.resolve("alice")
        rows.asked.clear()
        await memory.resolve("alice")
        assert rows.asked == []
        while time.time() <= rows.ends_at:
            await asyncio.sleep(0.01)
        await memory.resolve("alice")
        assert rows.asked == ["alice", "alice"]

    with_cache(tell)


def test_the_cache_is_bounded() -> None:
    """The least recently used entry goes first, with its index."""
    people = PrincipalCache(2)
    for name in ("ann", "ben"):
        people.put(name.encode(), principal(name))
    people.get(b"ann")
    people.put(b"cid", principal("cid"))
    assert set(people.known) == {b"ann", b"cid"}
    assert set(people.tokens) == {"jti-ann", "jti-cid"}
    assert people.users == {1: {b"ann", b"cid"}}
    people.drop(b"ann")
    people.drop(b"ann")
    people.drop(b"cid")
    assert not people.users and not people.tokens


def test_unused_entries_expire() -> None:
    """Refreshed or abandoned tokens do not stay in a worker's memory."""
    people = PrincipalCache(9)
    for name in ("ann", "ben", "cid"):
        people.put(name.encode(), principal(name))
    people.evict_idle()
    people.get(b"ann")
    people.drop(b"cid")
    people.put(b"dan", principal("dan"))
    people.evict_idle()
    assert set(people.known) == {b"ann", b"dan"}
    people.clear()
    people.evict_idle()
    assert not people.known and not people.idle


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
