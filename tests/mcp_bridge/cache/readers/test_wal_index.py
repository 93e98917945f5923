"""SQLite's WAL index shows the commits of every process, and no lock is lost."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mcp_bridge.cache.readers import sqlite, wal_index
from mcp_bridge.cache.readers.base import (
    UNTRACKED,
    ChangeRow,
    DatabaseReplaced,
    DatabaseUnavailable,
    LogPosition,
)
from mcp_bridge.cache.readers.sqlite import SqliteReader

pytestmark = pytest.mark.once
COUNT = "UPDATE mcp_bridge_changecounter SET number = number + 1"


@pytest.fixture
def name(tmp_path: Path) -> str:
    """A database in WAL mode with a counter at 1."""
    return counter_database(tmp_path / "counted.sqlite3", "wal")


def counter_database(path: Path, mode: str) -> str:
    """A database whose counter is at 1."""
    opened = sqlite3.connect(path, isolation_level=None)
    opened.execute(f"PRAGMA journal_mode = {mode}")
    opened.execute("CREATE TABLE mcp_bridge_changecounter (epoch, number)")
    opened.execute("INSERT INTO mcp_bridge_changecounter VALUES ('one', 1)")
    opened.close()
    return str(path)


@pytest.fixture
def reader(name: str) -> Iterator[SqliteReader]:
    """A reader that has read twice, and so has the index."""
    wal_reader = SqliteReader(name)
    assert [number(wal_reader), number(wal_reader)] == [1, 1]
    yield wal_reader
    wal_reader.close()


def number(reader: SqliteReader) -> int:
    """The current number of the last change."""
    return asyncio.run(reader.current_position()).number


def run_in_process(name: str, statement: str) -> str:
    """Run a statement in another process; its error if it fails."""
    code = (
        "import sqlite3, sys\n"
        "opened = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)\n"
        "opened.execute(sys.argv[2])\n"
    )
    command = [sys.executable, "-c", code, name, statement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr


@pytest.mark.spec("cached rows are never stale")
def test_the_row_is_read_again_after_a_commit_and_only_then(
    name: str, reader: SqliteReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(sqlite, "POSITION_QUERY", "not to be asked")
        assert number(reader) == 1
    for expected in (2, 3, 4):
        assert not run_in_process(name, COUNT)
        assert number(reader) == expected


def test_a_checkpoint_hides_no_commit(name: str, reader: SqliteReader) -> None:
    assert not run_in_process(name, COUNT)
    assert not run_in_process(name, "PRAGMA wal_checkpoint(TRUNCATE)")
    assert number(reader) == 2
    assert not run_in_process(name, COUNT)
    assert number(reader) == 3


def test_uncommitted_changes_are_not_seen(name: str, reader: SqliteReader) -> None:
    writer = sqlite3.connect(name, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute(COUNT)
    assert number(reader) == 1
    writer.execute("COMMIT")
    assert number(reader) == 2
    writer.close()


def test_a_commit_during_a_read_is_seen_by_the_next_read(
    name: str, reader: SqliteReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header is read before the row."""
    assert not run_in_process(name, COUNT)
    opened = reader.connection
    assert opened is not None

    def late(*_: object) -> None:
        assert not run_in_process(name, COUNT)

    opened.set_trace_callback(late)
    before = number(reader)
    opened.set_trace_callback(None)
    assert before in (2, 3)
    assert number(reader) == 3


class LateConnection:
    """A connection after whose every read another process commits once."""

    def __init__(self, opened: sqlite3.Connection, name: str) -> None:
        self.opened, self.name, self.commits = opened, name, 0

    def execute(self, statement: str) -> Any:
        rows = self.opened.execute(statement).fetchall()
        assert not run_in_process(self.name, COUNT)
        self.commits += 1
        return SimpleNamespace(fetchone=lambda: rows[0])


def test_a_commit_after_the_row_was_read_is_seen_by_the_next_read(
    name: str, reader: SqliteReader
) -> None:
    """A header that is read after the row would hide it."""
    opened = reader.connection
    assert opened is not None and not run_in_process(name, COUNT)
    late = LateConnection(opened, name)
    reader.connection = cast(sqlite3.Connection, late)
    assert (number(reader), late.commits) == (2, 1)
    reader.connection = opened
    assert [number(reader), number(reader)] == [3, 3]


def test_opening_and_closing_a_reader_releases_no_lock(name: str) -> None:
    """POSIX: closing a descriptor drops the locks of the whole process on that file."""
    writer = sqlite3.connect(name, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    for _ in range(2):
        reader = SqliteReader(name)
        assert [number(reader), number(reader)] == [1, 1]
        assert reader.index is not None
        reader.close()
        assert "locked" in run_in_process(name, COUNT)
    writer.execute("COMMIT")
    writer.close()
    assert not run_in_process(name, COUNT)


def test_without_an_index_the_row_is_read_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database uses another journal mode."""
    name = counter_database(tmp_path / "plain.sqlite3", "delete")
    reader = SqliteReader(name)
    assert [number(reader), number(reader)] == [1, 1]
    assert not run_in_process(name, COUNT)
    assert number(reader) == 2
    assert reader.index is None
    reader.close()


def test_one_map_serves_every_reader_of_a_database(
    name: str, reader: SqliteReader
) -> None:
    """Descriptors are never closed, so there must be few."""
    before = len(wal_index.mapped)
    other = SqliteReader(name)
    assert [number(other), number(other)] == [1, 1]
    assert other.index is reader.index
    assert len(wal_index.mapped) == before
    other.close()


def test_a_closed_reader_keeps_no_index(name: str, reader: SqliteReader) -> None:
    """SQLite makes a new index; the old one would show no commit ever again."""
    reader.close()
    assert reader.index is None and reader.connection is None
    assert not run_in_process(name, COUNT)
    assert number(reader) == 2
    assert not run_in_process(name, COUNT)
    assert number(reader) == 3


def test_a_file_that_was_replaced_while_the_reader_was_closed_is_noticed(
    name: str, reader: SqliteReader, tmp_path: Path
) -> None:
    """Not the number that the old index shows."""
    reader.close()
    Path(counter_database(tmp_path / "new.sqlite3", "wal")).replace(name)
    for _ in range(2):
        with pytest.raises(DatabaseReplaced, match="restart the server"):
            number(reader)
    assert reader.connection is None and reader.index is None


def test_no_more_than_one_copy_of_the_header_is_mapped(reader: SqliteReader) -> None:
    """sqlite.org/walformat.html 2.1: 48 bytes, of which the change counter is one."""
    assert wal_index.HEADER == 48
    assert reader.index is not None and len(reader.index) == 48
    assert reader.header == reader.index[:48]


def test_a_wal_database_without_its_index_file_has_no_index(tmp_path: Path) -> None:
    """In exclusive mode SQLite keeps the index in memory."""
    name = counter_database(tmp_path / "alone.sqlite3", "wal")
    opened = sqlite3.connect(name, isolation_level=None)
    opened.execute("PRAGMA locking_mode = exclusive")
    opened.execute("SELECT * FROM mcp_bridge_changecounter").fetchall()
    assert wal_index.wal_index(opened, name) is None
    opened.close()


def test_the_reader_neither_writes_nor_creates(tmp_path: Path, name: str) -> None:
    missing = tmp_path / "missing.sqlite3"
    with pytest.raises(DatabaseUnavailable):
        number(SqliteReader(str(missing)))
    assert not missing.exists()
    reader = SqliteReader(name)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.open().execute(COUNT)
    reader.close()


def test_changes_are_read_between_two_numbers(name: str, reader: SqliteReader) -> None:
    with sqlite3.connect(name) as opened:
        opened.execute("CREATE TABLE mcp_bridge_loggedchange (number, kind, key)")
        rows = [(n, "user", str(n)) for n in (5, 3, 1, 2, 4)]
        insert = "INSERT INTO mcp_bridge_loggedchange VALUES (?, ?, ?)"
        opened.executemany(insert, rows)
    opened.close()
    after, upto = LogPosition("one", 1), LogPosition("one", 4)
    found = asyncio.run(reader.changes_between(after, upto))
    assert found == [ChangeRow(n, "user", str(n)) for n in (2, 3, 4)]
    assert type(found[0]) is ChangeRow
    reader.close()
    assert asyncio.run(reader.changes_between(after, upto)) == found


def test_a_reader_waits_a_fifth_of_a_second_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs on the event loop: a locked database is a refusal, not a wait."""
    asked: list[object] = []
    connect = sqlite3.connect

    def noting(*names: Any, **options: Any) -> sqlite3.Connection:
        asked.append(options.get("timeout"))
        opened: sqlite3.Connection = connect(*names, **options)
        return opened

    monkeypatch.setattr(sqlite3, "connect", noting)
    reader = SqliteReader(counter_database(tmp_path / "a.sqlite3", "wal"))
    asked.clear()
    assert number(reader) == 1 and asked == [0.2]
    reader.close()


def test_a_failed_read_closes_the_connection(
    reader: SqliteReader, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next read opens another."""
    with monkeypatch.context() as broken:
        broken.setattr(sqlite, "POSITION_QUERY", "SELECT nonsense")
        assert not run_in_process(name, COUNT)
        with pytest.raises(DatabaseUnavailable, match="nonsense"):
            number(reader)
        assert reader.connection is None
    assert number(reader) == 2
    monkeypatch.setattr(sqlite, "CHANGES_QUERY", "SELECT nonsense")
    with pytest.raises(DatabaseUnavailable):
        asyncio.run(reader.changes_between(UNTRACKED, UNTRACKED))
    assert reader.connection is None


def test_a_replacement_is_logged_once(
    name: str, reader: SqliteReader, caplog: pytest.LogCaptureFixture
) -> None:
    assert not reader.replaced()
    Path(name).rename(f"{name}.old")
    for _ in range(3):
        assert reader.replaced()
    (record,) = caplog.records
    assert record.levelname == "CRITICAL" and name in record.message
    assert reader.header == b"", "the next position is read"
