"""SQLite's WAL index shows the commits of every process, and no lock is lost."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_bridge.cache.readers import sqlite, wal_index
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
