"""Install the change triggers after each migrate and verify them at start.

Triggers also see bulk updates and SQL from other programs; signals do not. SQLite's
migrations rebuild tables and silently drop triggers. So a migrate removes all of them
first, and afterwards installs them and starts a new epoch. Meanwhile the epoch is empty
and nothing is cached.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple
from uuid import uuid4

from django.db import connection, transaction

from mcp_bridge.cache.triggers import postgresql, sqlite
from mcp_bridge.cache.watched_tables import UntrackedTable
from mcp_bridge.models import ChangeCounter


def dialect() -> Any:
    """The module with this database's SQL."""
    return sqlite if connection.vendor == "sqlite" else postgresql


def install_triggers(**kwargs: Any) -> None:
    """Create every trigger and start a new epoch (signal: post_migrate)."""
    if not _tables_exist():
        return
    suspend_tracking()
    with _ddl_transaction(), connection.cursor() as cursor:
        for statement in dialect().create_statements():
            cursor.execute(statement)
    epoch = {"epoch": uuid4().hex}
    ChangeCounter.objects.update_or_create(pk=1, defaults=epoch)


def suspend_tracking(**kwargs: Any) -> None:
    """Empty the epoch, then drop the triggers (signal: pre_migrate)."""
    if not _tables_exist():
        return
    ChangeCounter.objects.update(epoch="")
    with _ddl_transaction(), connection.cursor() as cursor:
        for statement in dialect().drop_statements(cursor):
            cursor.execute(statement)


class TriggerState(NamedTuple):
    """The triggers as found in the database."""

    missing: list[str]
    """Triggers that are absent or differ from the expected ones."""
    outside: list[UntrackedTable]
    """Tables that change without firing a trigger."""
    marks: tuple[Any, ...]
    """Differs after any change to a trigger, even one that was undone."""


def state() -> TriggerState:
    """Read the state.

    The marks are read first, so a change during the reads shows the next time.
    """
    with connection.cursor() as cursor:
        marks = dialect().marks(cursor)
        installed = dialect().installed(cursor)
        outside = dialect().outside(cursor)
    expected = dialect().expected_triggers()
    missing = sorted(n for n, text in expected.items() if installed.get(n) != text)
    return TriggerState(missing, outside, marks)


def missing_triggers() -> list[str]:
    """Names of triggers that are absent or differ from the expected ones."""
    return state().missing


def _tables_exist() -> bool:
    return ChangeCounter._meta.db_table in connection.introspection.table_names()


def _ddl_transaction() -> AbstractContextManager[Any]:
    """One transaction on SQLite, autocommit on PostgreSQL.

    A PostgreSQL transaction would lock one table while it waits for the next, and could
    deadlock with requests. Nothing is cached until the new epoch, so a partial run is
    harmless.
    """
    if connection.vendor == "sqlite":
        return transaction.atomic()
    return nullcontext()
