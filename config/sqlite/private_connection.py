"""SQLite connections that create private files."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import Any

from config.environment import private


class PrivateConnection(sqlite3.Connection):
    """Creates a missing database file with mode 0600.

    SQLite would create it with 0644; -wal and -shm get the mode of the database. If the
    file cannot be created, SQLite's own error is clearer. The settings do not create
    it: a command that stops before it needs the database must not leave one.
    """

    def __init__(self, database: Any, *args: Any, **options: Any) -> None:
        name = str(database)
        if name and not name.startswith((":memory:", "file:")):
            with suppress(OSError), open(name, "x", opener=private):
                pass
        super().__init__(database, *args, **options)
