"""How Django opens SQLite."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import Any

from config.environment import private


class PrivateConnection(sqlite3.Connection):
    """Makes a database that is not there yet with 0600.

    SQLite makes its own with 0644, and its -wal and -shm as the database is. Where the
    file cannot be made, SQLite says so better. Not when settings are read: a command
    that stops before it needs the database must leave none.
    """

    def __init__(self, database: Any, *args: Any, **options: Any) -> None:
        name = str(database)
        if name and not name.startswith((":memory:", "file:")):
            with suppress(OSError), open(name, "x", opener=private):
                pass
        super().__init__(database, *args, **options)
