"""An empty SQLite database to copy to, migrated if this run has a stored one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.support import migrated_database


def empty_sqlite(folder: Path, name: str = "target") -> str:
    """Its URL. Without a stored copy, copy_database migrates it."""
    path = folder / f"{name}.sqlite3"
    if migrated_database.restore(path):
        # The run's database may be another copy of the stored one.
        with closing(sqlite3.connect(path)) as opened, opened:
            opened.execute("UPDATE mcp_bridge_changecounter SET epoch = 'target'")
    return f"sqlite:///{path}"
