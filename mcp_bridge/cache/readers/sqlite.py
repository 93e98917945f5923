"""The change log on SQLite: read on the event loop, in microseconds."""

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
    DatabaseReplaced,
    DatabaseUnavailable,
    LogPosition,
)
from mcp_bridge.cache.readers.wal_index import HEADER, wal_index

logger = logging.getLogger(__name__)


REPLACED = (
    "The database %s was replaced or removed while the server ran. Every request "
    "is refused until you restart the server."
)


WAL_FILES = ("-wal", "-shm")
"""Suffixes of files that stay the same while a WAL connection is open."""


def file_identity(path: str) -> tuple[int, int] | None:
    """(device, inode) of the file with this name; None if there is no such file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


class SqliteReader:
    """A dedicated connection that never waits for a lock.

    In WAL mode a reader waits for no writer. The WAL index shows almost for free that
    nothing was committed. A removed or replaced file stays open here and in Django's
    connections, and no read fails. So the reader compares the file names with the open
    files.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.connection: sqlite3.Connection | None = None
        self.index: mmap | None = None
        self.header = b""
        self.position = UNTRACKED
        self.files: dict[str, tuple[int, int]] = {}
        self.was_replaced = False

    async def current_position(self) -> LogPosition:
        """Skips the read while the WAL index shows no commit."""
        if self.index is None or self.index[:HEADER] != self.header:
            self.read()
        return self.position

    def read(self) -> None:
        """Read the row. Raises DatabaseUnavailable."""
        # Before the row: the next read then sees a commit in between.
        header = self.index[:HEADER] if self.index else b""
        try:
            opened = self.connection or self.open()
            row = opened.execute(POSITION_QUERY).fetchone()
            if self.index is None:
                self.index = wal_index(opened, self.name)
                self._record_files(WAL_FILES if self.index else ())
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise DatabaseUnavailable(str(error)) from error
        self._check_file()
        self.position, self.header = LogPosition(*row) if row else UNTRACKED, header

    async def changes_between(
        self, after: LogPosition, upto: LogPosition
    ) -> list[ChangeRow]:
        try:
            opened = self.connection or self.open()
            rows = opened.execute(CHANGES_QUERY.format(after.number, upto.number))
            return [ChangeRow(*row) for row in rows]
        except sqlite3.Error as error:
            self.close()
            raise DatabaseUnavailable(str(error)) from error

    def open(self) -> sqlite3.Connection:
        """Connect for reading only; a missing file is not created."""
        if self.was_replaced:  # SQLite's own error names no remedy.
            raise DatabaseReplaced(REPLACED % self.name)
        self.connection = sqlite3.connect(
            f"{Path(self.name).absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=0.2,
            isolation_level=None,
        )
        self.connection.execute("PRAGMA query_only = ON")
        # Recorded once per process: Django's connections keep the first file, too.
        if "" not in self.files:
            self._record_files(("",))
        self._check_file()
        return self.connection

    def _record_files(self, ends: tuple[str, ...]) -> None:
        """Record the files with these suffixes; other threads may read the old dict."""
        files = {end: file_identity(self.name + end) for end in ends}
        self.files = self.files | {end: file for end, file in files.items() if file}

    def _check_file(self) -> None:
        """Compare the open file with the name. Raises DatabaseReplaced."""
        known = self.files.get("")
        if self.was_replaced or known is None or file_identity(self.name) != known:
            self.mark_replaced()
            self.close()
            raise DatabaseReplaced(REPLACED % self.name)

    def mark_replaced(self) -> None:
        """Mark the file as replaced and log it once."""
        if not self.was_replaced:
            self.was_replaced = True
            self.header = b""  # so that the next position is read, and fails
            logger.critical(REPLACED, self.name)

    def replaced(self) -> bool:
        """Closes nothing, because any thread may call it."""
        known = list(self.files.items())
        if any(file_identity(self.name + end) != file for end, file in known):
            self.mark_replaced()
        return self.was_replaced

    def close(self) -> None:
        # SQLite removes these two files with its last connection.
        self.files = {end: f for end, f in self.files.items() if end not in WAL_FILES}
        if self.connection is not None:
            self.connection.close()
            self.connection = self.index = None
