"""The read inside the request on SQLite."""

from __future__ import annotations

import logging
import os
import sqlite3
from mmap import mmap
from pathlib import Path

from mcp_bridge.cache.readers.base import (
    CHANGES_QUERY,
    POSITION_QUERY,
    UNTRACKED,
    ChangeRow,
    DatabaseUnavailable,
    LogPosition,
    Replaced,
)
from mcp_bridge.cache.readers.wal_index import HEADER, wal_index

logger = logging.getLogger(__name__)


REPLACED = (
    "The database %s was replaced or removed while the server ran. Nothing is "
    "decided until it restarts: restart the server"
)


BESIDE = ("-wal", "-shm")
"""Files that stay the same while a connection in WAL mode is open."""


def identity(path: str) -> tuple[int, int] | None:
    """Which file has this name now; None if it cannot be found."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class SqliteReader:
    """A connection of its own, read on the event loop: microseconds, never a lock.

    In WAL mode a reader waits for no writer, and the WAL-index says for next to
    nothing that nobody has committed. But a file removed or replaced stays open here
    and in Django's connections: no read of it tells, so the names are looked at.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.connection: sqlite3.Connection | None = None
        self.index: mmap | None = None
        self.header = b""
        self.point = UNTRACKED
        self.files: dict[str, tuple[int, int]] = {}
        self.moved = False

    async def current_position(self) -> LogPosition:
        """As the protocol says; while nobody has committed, nothing changed."""
        if self.index is None or self.index[:HEADER] != self.header:
            self.read()
        return self.point

    def read(self) -> None:
        """Read the row. Raises Away."""
        # Before the row: what is committed in between is seen by the next look.
        header = self.index[:HEADER] if self.index else b""
        try:
            opened = self.connection or self.open()
            row = opened.execute(POSITION_QUERY).fetchone()
            if self.index is None:
                self.index = wal_index(opened, self.name)
                self.note(BESIDE if self.index else ())
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise DatabaseUnavailable(str(error)) from error
        self.compare()
        self.point, self.header = LogPosition(*row) if row else UNTRACKED, header

    async def changes_between(
        self, after: LogPosition, upto: LogPosition
    ) -> list[ChangeRow]:
        """As the protocol says."""
        try:
            opened = self.connection or self.open()
            found = opened.execute(CHANGES_QUERY.format(after.number, upto.number))
            return [ChangeRow(*row) for row in found]
        except sqlite3.Error as error:
            self.close()
            raise DatabaseUnavailable(str(error)) from error

    def open(self) -> sqlite3.Connection:
        """Connect for reading only; never make a file that is not there."""
        if self.moved:  # SQLite's own words for a missing file name no remedy.
            raise Replaced(REPLACED % self.name)
        self.connection = sqlite3.connect(
            f"{Path(self.name).absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=0.2,
            isolation_level=None,
        )
        self.connection.execute("PRAGMA query_only = ON")
        # Kept for as long as the process runs: Django's connections keep theirs, too.
        if "" not in self.files:
            self.note(("",))
        self.compare()
        return self.connection

    def note(self, ends: tuple[str, ...]) -> None:
        """Remember which files have these names; another thread may read the old."""
        found = {end: identity(self.name + end) for end in ends}
        self.files = self.files | {end: file for end, file in found.items() if file}

    def compare(self) -> None:
        """Look at the database's name. Raises Replaced."""
        known = self.files.get("")
        if self.moved or known is None or identity(self.name) != known:
            self.give_up()
            self.close()
            raise Replaced(REPLACED % self.name)

    def give_up(self) -> None:
        """Say so once."""
        if not self.moved:
            self.moved = True
            self.header = b""  # so that the next look reads, and finds this out
            logger.critical(REPLACED, self.name)

    def replaced(self) -> bool:
        """As the protocol says; from any thread, so nothing is closed here."""
        known = list(self.files.items())
        if any(identity(self.name + end) != file for end, file in known):
            self.give_up()
        return self.moved

    def close(self) -> None:
        """As the protocol says."""
        # The last connection may take these two along.
        self.files = {end: f for end, f in self.files.items() if end not in BESIDE}
        if self.connection is not None:
            self.connection.close()
            self.connection = self.index = None
