"""The triggers that number changes: installed after every migrate, verified at start.

They are the one way that also sees bulk updates and SQL from elsewhere. SQLite's
migrations rebuild tables and silently lose triggers, so none survive a migrate: while
one runs nothing is remembered (the epoch is empty), after it a new epoch begins.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple
from uuid import uuid4

from django.db import connection, transaction

from mcp_bridge.cache.triggers import postgresql, sqlite
from mcp_bridge.cache.watched_tables import Outside
from mcp_bridge.models import ChangeCounter


def dialect() -> Any:
    """The module that speaks this database's SQL."""
    return sqlite if connection.vendor == "sqlite" else postgresql


def install_triggers(**kwargs: Any) -> None:
    """Make every trigger anew and begin an epoch (signal: post_migrate)."""
    if not _tables_exist():
        return
    suspend_tracking()
    with _together(), connection.cursor() as cursor:
        for statement in dialect().statements():
            cursor.execute(statement)
    epoch = {"epoch": uuid4().hex}
    ChangeCounter.objects.update_or_create(pk=1, defaults=epoch)


def suspend_tracking(**kwargs: Any) -> None:
    """Say that changes are not numbered, then drop the triggers (pre_migrate)."""
    if not _tables_exist():
        return
    ChangeCounter.objects.update(epoch="")
    with _together(), connection.cursor() as cursor:
        for statement in dialect().drops(cursor):
            cursor.execute(statement)


class TriggerState(NamedTuple):
    """Whether changes are numbered, as somebody found it."""

    missing: list[str]
    """Triggers that are not there, or not as this code makes them."""
    outside: list[Outside]
    """Tables that change without any."""
    marks: tuple[Any, ...]
    """Another tuple: triggers were changed since, perhaps there and back."""


def state() -> TriggerState:
    """Look. The marks come first: what is changed meanwhile shows the next time."""
    with connection.cursor() as cursor:
        marks = dialect().marks(cursor)
        found = dialect().installed(cursor)
        outside = dialect().outside(cursor)
    expected = dialect().expected_triggers()
    lost = sorted(name for name, text in expected.items() if found.get(name) != text)
    return TriggerState(lost, outside, marks)


def missing_triggers() -> list[str]:
    """Names of triggers that are not there, or not as this code makes them."""
    return state().missing


def _tables_exist() -> bool:
    return ChangeCounter._meta.db_table in connection.introspection.table_names()


def _together() -> AbstractContextManager[Any]:
    """One transaction on SQLite. On PostgreSQL each statement is one of its own.

    Holding one table's lock while waiting for the next would meet requests in a
    deadlock. Nothing counts until the new epoch, so half of it harms nobody.
    """
    if connection.vendor == "sqlite":
        return transaction.atomic()
    return nullcontext()
