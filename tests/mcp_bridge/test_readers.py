"""The read inside the request, on the real database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from django.db import connection

from accounts.models import User
from mcp_bridge import readers, readers_postgresql
from mcp_bridge.models import ChangeCounter
from mcp_bridge.readers import Away, Reader, SqliteReader
from mcp_bridge.readers_postgresql import Flight, PostgresReader
from tests.people import person


@pytest.fixture
def rows(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The run's database, open: what is committed here others see."""
    with django_db_blocker.unblock():
        yield


def told(tell: Callable[[Reader], Coroutine[Any, Any, None]]) -> None:
    """Run a story with this run's reader."""
    made = readers.reader()

    async def whole() -> None:
        try:
            await tell(made)
        finally:
            made.close()

    asyncio.run(whole())


def reads(monkeypatch: pytest.MonkeyPatch, **queries: str) -> None:
    """Have both readers ask something else."""
    for name, query in queries.items():
        monkeypatch.setattr(readers, name, query)
        monkeypatch.setattr(readers_postgresql, name, query)


async def commit(work: Callable[[], Any]) -> None:
    """Do `work` in another thread, and so on another connection."""

    def done() -> None:
        try:
            work()
        finally:
            connection.close()

    await asyncio.to_thread(done)


@pytest.fixture
def dave(rows: None) -> User:
    """Somebody committed."""
    return person("dave", "Guest")


def switch(user: User) -> Callable[[], Any]:
    """A change that concerns one user."""
    on = {"is_active": True}
    off = {"is_active": False}

    def work() -> None:
        mine = User.objects.filter(pk=user.pk)
        mine.update(**off)
        mine.update(**on)

    return work


@pytest.mark.spec("ours: remembered, never stale")
def test_a_look_after_a_commit_sees_it(dave: User) -> None:
    """architecture 4."""

    async def tell(reader: Reader) -> None:
        for _ in range(5):
            before = await reader.look()
            assert await reader.look() == before and before.epoch
            await commit(switch(dave))
            after = await reader.look()
            assert after.number == before.number + 2
            news = await reader.news(before, after)
            assert [(c.kind, c.key) for c in news] == [("user", str(dave.pk))] * 2
            assert [c.number for c in news] == [before.number + 1, after.number]

    told(tell)


def test_looks_at_the_same_time_share_reads_and_see_what_was_before_them(
    dave: User,
) -> None:
    """ours: single flight; nobody joins a read that was sent before he came."""

    async def tell(reader: Reader) -> None:
        await reader.look()
        early = [asyncio.create_task(reader.look()) for _ in range(20)]
        await asyncio.sleep(0)
        await commit(switch(dave))
        number = (await reader.look()).number
        late = await asyncio.gather(*(reader.look() for _ in range(20)))
        assert {point.number for point in late} == {number}
        assert max(point.number for point in await asyncio.gather(*early)) <= number

    told(tell)


def test_a_look_never_joins_a_read_in_flight(rows: None) -> None:
    """ours."""
    if connection.vendor == "sqlite":
        return

    async def tell(reader: Reader) -> None:
        assert isinstance(reader, PostgresReader)
        await reader.look()
        sent: list[Flight] = []
        send = reader.send

        def noticing(flight: Flight, wire: Any) -> None:
            sent.append(flight)
            send(flight, wire)

        reader.send = noticing  # type: ignore[method-assign]
        first = asyncio.create_task(reader.look())
        await asyncio.sleep(0)
        assert len(sent) == 1 and reader.flight is sent[0]
        others = [asyncio.create_task(reader.look()) for _ in range(5)]
        await asyncio.sleep(0)
        assert len(sent[0].waiting) == 1
        await asyncio.gather(first, *others)
        assert len(sent) == 2 and len(sent[1].waiting) == 5

    told(tell)


def test_who_gives_up_waiting_holds_nobody_up(rows: None) -> None:
    """ours: a client that disconnects must not take others' answers along."""

    async def tell(reader: Reader) -> None:
        await reader.look()
        first, second, third = (asyncio.create_task(reader.look()) for _ in range(3))
        await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        assert (await third).epoch
        assert (await reader.look()).epoch

    told(tell)


def test_a_lost_connection_is_away_and_then_back(rows: None) -> None:
    """ours: 503 until it is back; waiting requests are told."""

    async def tell(reader: Reader) -> None:
        await reader.look()
        if isinstance(reader, SqliteReader):
            reader.name, good = "/nowhere/else.sqlite3", reader.name
            reader.close()
            with pytest.raises(Away):
                await reader.look()
            with pytest.raises(Away):
                await reader.news(readers.NOWHERE, readers.NOWHERE)
            reader.name = good
        else:
            assert isinstance(reader, PostgresReader) and reader.connection
            pid = reader.connection.info.backend_pid
            flight = Flight("SELECT pg_sleep(20)")
            reader.others.append(flight)
            asked, look = reader.asked(flight), asyncio.ensure_future(reader.look())
            await commit(lambda: terminate(pid))
            for waiting in (asked, look):
                with pytest.raises(Away):
                    await waiting
        assert (await reader.look()).epoch

    told(tell)


def terminate(pid: int) -> None:
    """End a backend."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [pid])


def test_a_database_that_cannot_be_reached_or_answers_nonsense_is_away(
    rows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ours: fail closed."""

    async def tell(reader: Reader) -> None:
        reads(monkeypatch, LOOK="SELECT nonsense")
        bad = readers.reader()
        with pytest.raises(Away):
            await bad.look()
        reads(monkeypatch, NEWS="SELECT nonsense {0} {1}")
        with pytest.raises(Away):
            await bad.news(readers.NOWHERE, readers.NOWHERE)
        bad.close()
        if isinstance(reader, PostgresReader):
            reader.parameters["host"], reader.parameters["port"] = "127.0.0.1", 1
            with pytest.raises(Away):
                await reader.look()

    told(tell)


def test_behind_a_pooler_nothing_is_prepared(
    rows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ours: PgBouncer may run the next statement where nothing was prepared."""
    if connection.vendor == "sqlite":
        return

    async def tell(reader: Reader) -> None:
        assert isinstance(reader, PostgresReader)
        assert (await reader.look()).epoch and reader.prepares
        monkeypatch.setattr(readers_postgresql, "PREPARED", b"elsewhere")
        with pytest.raises(Away):
            await reader.look()
        assert (await reader.look()).epoch and not reader.prepares

    told(tell)


def test_silence_ends_the_connection(
    rows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ours: a database that hangs is away."""
    if connection.vendor == "sqlite":
        return
    monkeypatch.setattr(readers_postgresql, "PATIENCE", 0.05)
    reads(monkeypatch, LOOK="SELECT 'e', 1 FROM pg_sleep(2)")

    async def tell(reader: Reader) -> None:
        with pytest.raises(Away, match="no answer"):
            await reader.look()

    told(tell)


def test_a_counter_without_its_row_is_nowhere(rows: None) -> None:
    """ours: a database emptied by hand."""

    async def tell(reader: Reader) -> None:
        kept = []

        def take() -> None:
            kept.append(ChangeCounter.objects.get())
            ChangeCounter.objects.all().delete()

        await commit(take)
        try:
            assert await reader.look() == readers.NOWHERE
        finally:
            await commit(lambda: kept[0].save(force_insert=True))
        assert (await reader.look()).epoch

    told(tell)
