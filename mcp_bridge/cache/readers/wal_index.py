"""SQLite's WAL-index: that nothing was committed since, seen without a system call.

Every process on the database maps this file (NAME-shm). The header in front of it
changes with each commit, before COMMIT returns (sqlite.org/walformat.html 2.1).
"""

from __future__ import annotations

import mmap
import os
import sqlite3

HEADER = 48
"""Bytes of the header's first copy, which is written last."""

mapped: dict[tuple[int, int], mmap.mmap] = {}
"""(device, inode) -> map, kept as long as the process lives: closing a descriptor of
a file drops every lock the process has on it (POSIX), and SQLite's are among them."""


def wal_index(connection: sqlite3.Connection, name: str) -> mmap.mmap | None:
    """The index of the database `connection` has read from; None if it keeps none.

    While that connection is open nobody can leave WAL mode or cut the file short.
    """
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    path = f"{name}-shm"
    if mode != "wal" or not os.path.exists(path):
        return None
    found = os.stat(path)
    key = found.st_dev, found.st_ino
    if key not in mapped:
        descriptor = os.open(path, os.O_RDONLY)  # never closed, see above
        mapped[key] = mmap.mmap(descriptor, HEADER, access=mmap.ACCESS_READ)
    return mapped[key]
