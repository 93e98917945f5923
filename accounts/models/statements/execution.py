"""Runs SQL that is written once; PostgreSQL keeps its plan on each connection.

Django binds values on the client, so PostgreSQL plans each statement again. A plan of
the roles of an account takes longer than reading them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import NotSupportedError


def fetch(connection: Any, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Execute a statement that returns rows. Raises django.db.Error."""
    with cursor_of(connection) as cursor:
        try:
            cursor.execute(sql, values)
        except NotSupportedError:
            if not forget_plans(connection):
                raise
            cursor.execute(sql, values)
        return list(cursor.fetchall())


def cursor_of(connection: Any) -> Any:
    """A cursor that psycopg prepares statements for (`prepare_threshold`).

    Django's own where it logs SQL: a prepared statement does not keep its text.
    """
    if connection.vendor != "postgresql" or connection.queries_logged:
        return connection.cursor()
    # A late import: psycopg takes 9 MB, and no worker on SQLite needs it.
    from django.db.backends.postgresql import base

    connection.ensure_connection()
    binding: Any = base.ServerBindingCursor
    return connection._prepare_cursor(binding(connection.connection))


def forget_plans(connection: Any) -> bool:
    """Prepare no more statements on this connection; whether to execute again.

    PostgreSQL refuses a plan after a migration has changed the type of a column. A
    transaction is over then.
    """
    connection.connection.prepare_threshold = None
    return not connection.in_atomic_block
