"""Commits that do not wait for the disk, and those that do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db import connection, transaction

from accounts.models.statements.durability import unsynced_transaction

RELAXED = {"sqlite": 1, "postgresql": "off"}
WAITING = {"sqlite": 2, "postgresql": "on"}
"""Kind of database -> how its commits wait for the disk."""


@pytest.fixture(autouse=True)
def outside(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """No transaction of a test is open. Nothing is written.

    The PostgreSQL of the tests never waits, so this session says that it does.
    """
    with django_db_blocker.unblock():
        set_on("on")
        yield
        set_on("DEFAULT")


def set_on(value: str) -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SET synchronous_commit = {value}")


def durability() -> Any:
    sqlite = connection.vendor == "sqlite"
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA synchronous" if sqlite else "SHOW synchronous_commit")
        return cursor.fetchone()[0]


@pytest.mark.parametrize("error", [None, OSError()], ids=["commit", "rollback"])
def test_only_this_transaction_does_not_wait(error: Exception | None) -> None:
    with suppress(OSError), unsynced_transaction():
        assert durability() == RELAXED[connection.vendor]
        if error is not None:
            raise error
    assert durability() == WAITING[connection.vendor]


def test_it_is_not_part_of_another_transaction() -> None:
    """The outer one would commit, or roll back, what it contains."""
    with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
        with unsynced_transaction():
            pass
    assert durability() == WAITING[connection.vendor]
