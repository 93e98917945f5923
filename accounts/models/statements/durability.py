"""Transactions whose commit does not wait for the disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction


@contextmanager
def unsynced_transaction() -> Iterator[None]:
    """A transaction that does not wait for the disk when it commits.

    It survives the end of a process. After a power failure it may be missing, until a
    later transaction has waited.
    """
    set_durability("PRAGMA synchronous = NORMAL")
    try:
        with transaction.atomic(durable=True):
            if connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute("SET LOCAL synchronous_commit = off")
            yield
    finally:
        set_durability("PRAGMA synchronous = FULL")


def set_durability(pragma: str) -> None:
    """Run the pragma in SQLite, which refuses it in a transaction (of a test)."""
    if connection.vendor == "sqlite" and not connection.in_atomic_block:
        with connection.cursor() as cursor:
            cursor.execute(pragma)
