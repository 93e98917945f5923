"""How call events and last uses reach their tables: one statement for many rows.

The ORM would cost more than the call that is recorded.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

from django.db import InterfaceError, OperationalError, connection
from django.db.models import JSONField

from accounts.models import AuditEvent, IssuedToken

MOST_ROWS = 500
"""SQLite takes 32,766 values in a statement."""
IDLE = 30.0
"""Seconds after which a connection is looked at before it is trusted."""


class CallEvent(NamedTuple):
    """One event of the door; the fields are columns of AuditEvent."""

    at: float
    action: str
    decision: str
    reason: str
    actor: str = ""
    actor_id: int | None = None
    client_id: str = ""
    token_id: str = ""
    address: str = ""
    object: str = ""
    via: str = ""
    outcome: str = ""
    duration_ms: float = 0.0
    request_id: str = ""


class Use(NamedTuple):
    """A token was used."""

    jti: str
    at: float
    address: str


@cache
def event_columns() -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Columns in the order of CallEvent, then the others; the defaults of those."""
    others = [
        field
        for field in AuditEvent._meta.local_concrete_fields
        if not field.primary_key and field.name not in CallEvent._fields
    ]
    names = (*CallEvent._fields, *(str(field.column) for field in others))
    return names, tuple(_default(field) for field in others)


def _default(field: Any) -> Any:
    value = field.get_default()
    return json.dumps(value) if isinstance(field, JSONField) else value


last_at = 0.0
"""When the recorder's one thread last wrote."""


def insert_events(events: Sequence[CallEvent]) -> None:
    """Commit these events. Raises django.db.Error."""
    global last_at
    idle = time.monotonic() - last_at > IDLE
    if idle and connection.connection is not None and not connection.is_usable():
        connection.close()
    try:
        connection.ensure_connection()
        with connection.wrap_database_errors:
            insert_many(events)
    except (OperationalError, InterfaceError):
        connection.close()
        raise
    last_at = time.monotonic()


def insert_many(events: Sequence[CallEvent]) -> None:
    """As the database takes it best."""
    if connection.vendor == "sqlite":
        for start in range(0, len(events), MOST_ROWS):
            sqlite_insert(events[start : start + MOST_ROWS])
    else:
        postgres_copy(events)


def sqlite_insert(events: Sequence[CallEvent]) -> None:
    """One statement is one transaction, and one time without Python's lock."""
    defaults = event_columns()[1]
    values: list[Any] = []
    for event in events:
        values.append(database_time(event.at))
        values += event[1:]
        values += defaults
    connection.connection.execute(sqlite_statement(len(events)), values)


@cache
def sqlite_statement(rows: int) -> str:
    """INSERT of so many rows."""
    names = event_columns()[0]
    places = f"({', '.join('?' * len(names))})"
    table, listed = AuditEvent._meta.db_table, ", ".join(f'"{n}"' for n in names)
    every = ", ".join([places] * rows)
    return f'INSERT INTO "{table}" ({listed}) VALUES {every}'  # noqa: S608


def postgres_copy(events: Sequence[CallEvent]) -> None:
    """COPY outside a transaction is one of its own."""
    names, defaults = event_columns()
    listed = ", ".join(f'"{name}"' for name in names)
    statement = f'COPY "{AuditEvent._meta.db_table}" ({listed}) FROM STDIN'
    with connection.connection.cursor() as cursor, cursor.copy(statement) as copy:
        for event in events:
            copy.write_row((database_time(event.at), *event[1:], *defaults))


def update_last_used(uses: Sequence[Use]) -> None:
    """Write when and from where tokens were last used.

    In order, so that two workers that note the same tokens do not lock each other out.
    """
    rows = sorted((jti, database_time(at), address) for jti, at, address in uses)
    with connection.cursor() as cursor:
        for start in range(0, len(rows), MOST_ROWS):
            some = rows[start : start + MOST_ROWS]
            if connection.vendor == "sqlite":
                given: list[Any] = [value for row in some for value in row]
            else:
                given = [list(column) for column in zip(*some, strict=True)]
            cursor.execute(uses_statement(connection.vendor, len(some)), given)


@cache
def uses_statement(vendor: str, rows: int) -> str:
    """UPDATE of so many tokens."""
    table = IssuedToken._meta.db_table
    if vendor == "sqlite":
        values = f"(VALUES {', '.join(['(%s, %s, %s)'] * rows)})"
        told = f"(SELECT column1 jti, column2 at, column3 address FROM {values})"  # noqa: S608
    else:
        columns = "%s::text[], %s::timestamptz[], %s::text[]"
        told = f"(SELECT * FROM unnest({columns}) AS given (jti, at, address))"  # noqa: S608
    return (
        f'UPDATE "{table}" SET last_used_at = told.at, last_used_from = told.address '  # noqa: S608
        f'FROM {told} AS told WHERE "{table}".jti = told.jti'
    )


def database_time(at: float) -> datetime | str:
    """A time as this database's driver takes it."""
    found = datetime.fromtimestamp(at, UTC)
    return str(found.replace(tzinfo=None)) if connection.vendor == "sqlite" else found
