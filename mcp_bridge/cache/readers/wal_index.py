"""SQLite's WAL index: shows without a system call that nothing was committed.

Every process on the database maps this file (NAME-shm). Each commit changes its header
before COMMIT returns (sqlite.org/walformat.html 2.1).
"""

from __future__ import annotations

import mmap
import os
import sqlite3

HEADER = 48
"""Bytes of the first copy of the header; SQLite writes it last."""

mapped: dict[tuple[int, int], mmap.mmap] = {}
"""(device, inode) -> map, never closed.

Closing a descriptor of a file drops every lock that the process has on it (POSIX).
SQLite's locks are among them.
"""


def wal_index(connection: sqlite3.Connection, name: str) -> mmap.mmap | None:
    """The WAL index of the database that `connection` has read; None without WAL.

    While that connection is open, no process can leave WAL mode or truncate the file.
    """
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    path = f"{name}-shm"
    if mode != "wal" or not os.path.exists(path):
        return None
    status = os.stat(path)
    key = status.st_dev, status.st_ino
    if key not in mapped:
        descriptor = os.open(path, os.O_RDONLY)  # never closed, see above
        mapped[key] = mmap.mmap(descriptor, HEADER, access=mmap.ACCESS_READ)
    return mapped[key]
