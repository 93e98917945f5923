"""The read inside the request, on the real database."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from django.db import connection

from accounts.models import User
from mcp_bridge.cache import readers
from mcp_bridge.cache.readers import base, postgresql, sqlite
from mcp_bridge.cache.readers.base import ChangeReader, DatabaseUnavailable
from mcp_bridge.cache.readers.postgresql import PendingQuery, PostgresReader
from mcp_bridge.cache.readers.sqlite import SqliteReader
from mcp_bridge.models import ChangeCounter
from tests.support.users import make_user


@pytest.fixture
def rows(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The run's database without a transaction: commits are visible to others."""
    with django_db_blocker.unblock():
        yield


def with_reader(tell: Callable[[ChangeReader], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine function with this run's reader."""
    reader = readers.open_reader()

    async def whole() -> None:
        try:
            await tell(reader)
        finally:
            reader.close()

    asyncio.run(whole())


def reads(monkeypatch: pytest.MonkeyPatch, **queries: str) -> None:
    """Replace the statement of both readers."""
    for name, query in queries.items():
        monkeypatch.setattr(sqlite, name, query)
        monkeypatch.setattr(postgresql, name, query)


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
    return make_user("dave", "Guest")


def switch(user: User) -> Callable[[], Any]:
    """A change that concerns one user."""
    on = {"is_active": True}
    off = {"is_active": False}

    def work() -> None:
        mine = User.objects.filter(pk=user.pk)
        mine.update(**off)
        mine.update(**on)

    return work


@pytest.mark.spec("cached rows are never stale")
def test_a_read_after_a_commit_sees_it(dave: User) -> None:
    async def tell(reader: ChangeReader) -> None:
        for _ in range(5):
            before = await reader.current_position()
            assert await reader.current_position() == before and before.epoch
            await commit(switch(dave))
            after = await reader.current_position()
            assert after.number == before.number + 2
            news = await reader.changes_between(before, after)
            assert [(c.kind, c.key) for c in news] == [("user", str(dave.pk))] * 2
            assert [c.number for c in news] == [before.number + 1, after.number]

    with_reader(tell)


def test_parallel_reads_are_shared_and_current(
    dave: User,
) -> None:
    """Single flight: no caller joins a read that started before its call."""

    async def tell(reader: ChangeReader) -> None:
        await reader.current_position()
        early = [asyncio.create_task(reader.current_position()) for _ in range(20)]
        await asyncio.sleep(0)
        await commit(switch(dave))
        number = (await reader.current_position()).number
        late = await asyncio.gather(*(reader.current_position() for _ in range(20)))
        assert {point.number for point in late} == {number}
        assert max(point.number for point in await asyncio.gather(*early)) <= number

    with_reader(tell)


def test_a_caller_never_joins_a_running_read(rows: None) -> None:
    if connection.vendor == "sqlite":
        return

    async def tell(reader: ChangeReader) -> None:
        assert isinstance(reader, PostgresReader)
        await reader.current_position()
        sent: list[PendingQuery] = []
        send = reader.send

        def noticing(query: PendingQuery, wire: Any) -> None:
            sent.append(query)
            send(query, wire)

        reader.send = noticing  # type: ignore[method-assign]
        first = asyncio.create_task(reader.current_position())
        await asyncio.sleep(0)
        assert len(sent) == 1 and reader.pending is sent[0]
        others = [asyncio.create_task(reader.current_position()) for _ in range(5)]
        await asyncio.sleep(0)
        assert len(sent[0].waiting) == 1
        await asyncio.gather(first, *others)
        assert len(sent) == 2 and len(sent[1].waiting) == 5

    with_reader(tell)


def test_a_cancelled_read_does_not_block_others(rows: None) -> None:
    """A client that disconnects must not cancel the read of others."""

    async def tell(reader: ChangeReader) -> None:
        await reader.current_position()
        first, second, third = (
            asyncio.create_task(reader.current_position()) for _ in range(3)
        )
        await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        assert (await third).epoch
        assert (await reader.current_position()).epoch

    with_reader(tell)


def test_a_lost_connection_is_an_error_until_it_is_back(rows: None) -> None:
    """Waiting requests get 503 until the connection works again."""

    async def tell(reader: ChangeReader) -> None:
        await reader.current_position()
        if isinstance(reader, SqliteReader):
            reader.name, good = "/nowhere/else.sqlite3", reader.name
            reader.close()
            with pytest.raises(DatabaseUnavailable):
                await reader.current_position()
            with pytest.raises(DatabaseUnavailable):
                await reader.changes_between(base.UNTRACKED, base.UNTRACKED)
            reader.name = good
        else:
            assert isinstance(reader, PostgresReader) and reader.connection
            pid = reader.connection.info.backend_pid
            flight = PendingQuery("SELECT pg_sleep(20)")
            reader.others.append(flight)
            pending, look = (
                reader.enqueue(flight),
                asyncio.ensure_future(reader.current_position()),
            )
            await commit(lambda: terminate(pid))
            for waiting in (pending, look):
                with pytest.raises(DatabaseUnavailable):
                    await waiting
        assert (await reader.current_position()).epoch

    with_reader(tell)


def terminate(pid: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [pid])


def test_an_unreachable_or_invalid_database_is_an_error(
    rows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tell(reader: ChangeReader) -> None:
        reads(monkeypatch, POSITION_QUERY="SELECT nonsense")
        bad = readers.open_reader()
        with pytest.raises(DatabaseUnavailable):
            await bad.current_position()
        reads(monkeypatch, CHANGES_QUERY="SELECT nonsense {0} {1}")
        with pytest.raises(DatabaseUnavailable):
            await bad.changes_between(base.UNTRACKED, base.UNTRACKED)
        bad.close()
        if isinstance(reader, PostgresReader):
            reader.parameters["host"], reader.parameters["port"] = "127.0.0.1", 1
            with pytest.raises(DatabaseUnavailable):
                await reader.current_position()

    with_reader(tell)


def test_behind_a_pooler_no_statement_is_prepared(
    rows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PgBouncer may run the next statement on another connection."""
    if connection.vendor == "sqlite":
        return

    async def tell(reader: ChangeReader) -> None:
        assert isinstance(reader, PostgresReader)
        assert (await reader.current_position()).epoch and reader.prepares
        monkeypatch.setattr(postgresql, "PREPARED", b"elsewhere")
        with pytest.raises(DatabaseUnavailable):
            await reader.current_position()
        assert (await reader.current_position()).epoch and not reader.prepares

    with_reader(tell)


@asynccontextmanager
async def pooler(parameters: dict[str, Any], state: str) -> AsyncIterator[int]:
    """A proxy that ends a connection which asks for the prepared look: its port.

    PgBouncer 1.21 and newer do so where they did not prepare it.
    """
    host, port = str(parameters.get("host")), parameters.get("port") or 5432
    fields = f"SFATAL\0VFATAL\0C{state}\0Munknown\0\0".encode()
    refusal = b"E" + (len(fields) + 4).to_bytes(4, "big") + fields
    bound = b"\0" + postgresql.PREPARED + b"\0"

    served: list[asyncio.Task[None]] = []

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)

    async def serve(client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        served.append(cast("asyncio.Task[None]", asyncio.current_task()))
        if host.startswith("/"):
            opened = asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            opened = asyncio.open_connection(host, port)
        there, upstream = await opened
        answers = asyncio.create_task(copy(there, back))
        while data := await client.read(65536):
            if bound in data:
                back.write(refusal)
                break
            upstream.write(data)
        answers.cancel()
        for writer in (back, upstream):
            writer.close()
        ended = (answers, back.wait_closed(), upstream.wait_closed())
        await asyncio.gather(*ended, return_exceptions=True)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        await asyncio.gather(*served)


@pytest.mark.parametrize(
    ("state", "pooled"), [("26000", True), ("08P01", True), ("57P01", False)]
)
def test_a_pooler_that_ends_the_connection_is_noticed(
    rows: None, state: str, pooled: bool
) -> None:
    """Whatever it calls the unknown statement; an ended server is no pooler."""
    if connection.vendor == "sqlite":
        return

    async def tell(reader: ChangeReader) -> None:
        assert isinstance(reader, PostgresReader)
        async with pooler(dict(reader.parameters), state) as port:
            plain = {"sslmode": "disable", "gssencmode": "disable"}
            reader.parameters |= {"host": "127.0.0.1", "port": port, **plain}
            with pytest.raises(DatabaseUnavailable):
                await reader.current_position()
            assert reader.prepares is not pooled
            if pooled:
                assert (await reader.current_position()).epoch
            reader.close()

    with_reader(tell)


def test_a_silent_connection_is_closed(
    rows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that does not answer counts as unreachable."""
    if connection.vendor == "sqlite":
        return
    monkeypatch.setattr(postgresql, "READ_TIMEOUT", 0.05)
    reads(monkeypatch, POSITION_QUERY="SELECT 'e', 1 FROM pg_sleep(2)")

    async def tell(reader: ChangeReader) -> None:
        with pytest.raises(DatabaseUnavailable, match="no answer"):
            await reader.current_position()

    with_reader(tell)


def test_a_counter_without_its_row_is_an_error(rows: None) -> None:
    async def tell(reader: ChangeReader) -> None:
        kept = []

        def take() -> None:
            kept.append(ChangeCounter.objects.get())
            ChangeCounter.objects.all().delete()

        await commit(take)
        try:
            assert await reader.current_position() == base.UNTRACKED
        finally:
            await commit(lambda: kept[0].save(force_insert=True))
        assert (await reader.current_position()).epoch

    with_reader(tell)


def counter_database(path: Path, epoch: str, number: int = 1) -> Path:
    """A new database in WAL mode with only the counter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = sqlite3.connect(path, isolation_level=None)
    opened.execute("PRAGMA journal_mode = wal")
    opened.execute("CREATE TABLE mcp_bridge_changecounter (epoch, number)")
    opened.execute(
        "INSERT INTO mcp_bridge_changecounter VALUES (?, ?)", (epoch, number)
    )
    opened.close()
    return path


@pytest.mark.once
@pytest.mark.parametrize(
    ("odd", "other"),
    [("%41", "A"), ("a?mode=ro", "a"), ("a#b", "a"), ("a b", "a"), ("ü", "u")],
)
def test_a_path_is_quoted(tmp_path: Path, odd: str, other: str) -> None:
    """sqlite.org/uri.html: % ? # are special in a URI and literal in a path."""
    ours = counter_database(tmp_path / odd / "portico.sqlite3", "ours")
    counter_database(tmp_path / other / "portico.sqlite3", "theirs")
    reader = SqliteReader(str(ours))
    assert asyncio.run(reader.current_position()).epoch == "ours"
    reader.close()


def mv(path: Path) -> None:
    """Move another database to this name, as restore.sh does."""
    counter_database(path.with_suffix(".new"), "new").replace(path)


def gone(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.parent.rename(path.parent.with_suffix(".old"))
    counter_database(path, "new")


def remove_beside(end: str) -> Callable[[Path], None]:
    """Remove a file beside it, as restore.sh does first."""

    def remove(path: Path) -> None:
        Path(f"{path}{end}").unlink()

    return remove


WAYS = {
    "mv": mv,
    "rm": gone,
    "mv of the folder": folder,
    "rm of -wal": remove_beside("-wal"),
    "rm of -shm": remove_beside("-shm"),
}


@pytest.mark.once
@pytest.mark.parametrize("how", WAYS)
def test_a_replaced_file_stops_reads_until_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """The open connection still reads the old file."""
    path = counter_database(tmp_path / "in" / "portico.sqlite3", "old")
    reader = SqliteReader(str(path))
    assert (
        asyncio.run(reader.current_position()).epoch == "old" and not reader.replaced()
    )
    WAYS[how](path)
    assert reader.replaced() and reader.replaced()
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable, match="restart the server"):
            asyncio.run(reader.current_position())
        with pytest.raises(DatabaseUnavailable, match="restart the server"):
            asyncio.run(reader.changes_between(base.UNTRACKED, base.UNTRACKED))
    assert caplog.text.count(str(path)) == 1 and "restart the server" in caplog.text


@pytest.mark.once
def test_a_commit_to_the_old_file_reveals_the_replacement(tmp_path: Path) -> None:
    """The server's own commits, such as the audit's, trigger the check."""
    path = counter_database(tmp_path / "portico.sqlite3", "old")
    reader = SqliteReader(str(path))
    asyncio.run(reader.current_position())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("SELECT * FROM mcp_bridge_changecounter").fetchall()
    mv(path)
    other.execute("UPDATE mcp_bridge_changecounter SET number = 2")
    with pytest.raises(DatabaseUnavailable, match="restart the server"):
        asyncio.run(reader.current_position())
    other.close()


@pytest.mark.once
def test_sqlites_own_changes_are_not_a_replacement(tmp_path: Path) -> None:
    """Checkpoints, VACUUM, opened, closed and lost connections."""
    path = counter_database(tmp_path / "portico.sqlite3", "ours")
    reader = SqliteReader(str(path))
    asyncio.run(reader.current_position())
    for statement in ("UPDATE mcp_bridge_changecounter SET number = 2", "VACUUM"):
        other = sqlite3.connect(path, isolation_level=None)
        other.execute(statement)
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        other.close()
        assert (
            asyncio.run(reader.current_position()).number == 2 and not reader.replaced()
        )
    reader.close()
    counter_database(tmp_path / "another.sqlite3", "x")
    assert not reader.replaced()
    assert asyncio.run(reader.current_position()).number == 2
    reader.close()
