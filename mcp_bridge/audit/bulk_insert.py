"""Bulk SQL for call events and last uses: one statement for many rows.

The ORM would cost more than the call that is recorded.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any, NamedTuple

from django.db import InterfaceError, OperationalError, connection
from django.db.models import JSONField

from accounts.models import AuditEvent, IssuedToken
from accounts.models.audit.columns import id_bytes
from accounts.models.audit.event_log import log_events

MAX_ROWS = 500
"""SQLite accepts at most 32,766 parameters in a statement."""
IDLE = 30.0
"""Seconds of idleness after which a connection is tested before use."""


class CallEvent(NamedTuple):
    """One event at /mcp; the fields are columns of AuditEvent."""

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
    arguments: str = ""
    """JSON of recorded_arguments.py; empty if the policy records nothing."""

    def __repr__(self) -> str:
        """As logs have it: without the arguments."""
        shown = self._asdict()
        del shown["arguments"]
        return f"CallEvent({', '.join(f'{n}={v!r}' for n, v in shown.items())})"


class Use(NamedTuple):
    """The last use of a token."""

    jti: str
    at: float
    address: str


@cache
def event_columns() -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Columns in the order of CallEvent, then the others with their defaults."""
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
"""Monotonic time of the audit thread's last write."""


def insert_events(events: Sequence[CallEvent]) -> None:
    """Insert and commit these events. Raises django.db.Error."""
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
    log_events(events)


def insert_many(events: Sequence[CallEvent]) -> None:
    """Insert with the fastest statement of this database."""
    if connection.vendor == "sqlite":
        for start in range(0, len(events), MAX_ROWS):
            sqlite_insert(events[start : start + MAX_ROWS])
    else:
        postgres_copy(events)


def sqlite_insert(events: Sequence[CallEvent]) -> None:
    """One statement: one transaction, and the GIL is released once."""
    defaults = event_columns()[1]
    values: list[Any] = []
    for event in events:
        values.append(sqlite_time(event.at))
        values += event[1:]
        values += defaults
    connection.connection.execute(sqlite_statement(len(events)), values)


@cache
def sqlite_statement(rows: int) -> str:
    names = event_columns()[0]
    placeholders = f"({', '.join('?' * len(names))})"
    table, columns = AuditEvent._meta.db_table, ", ".join(f'"{n}"' for n in names)
    values = ", ".join([placeholders] * rows)
    return f'INSERT INTO "{table}" ({columns}) VALUES {values}'  # noqa: S608


def postgres_copy(events: Sequence[CallEvent]) -> None:
    """COPY in autocommit mode is its own transaction."""
    names, defaults = event_columns()
    ids = [names.index(name) for name in ("token_id", "request_id")]
    columns = ", ".join(f'"{name}"' for name in names)
    statement = f'COPY "{AuditEvent._meta.db_table}" ({columns}) FROM STDIN'
    with connection.connection.cursor() as cursor, cursor.copy(statement) as copy:
        for event in events:
            row = [datetime.fromtimestamp(event.at, UTC), *event[1:], *defaults]
            for index in ids:
                row[index] = id_bytes(row[index])
            copy.write_row(row)


def update_last_used(uses: Sequence[Use]) -> None:
    """Write when and from where tokens were last used.

    Rows are sorted, so two workers that write the same tokens do not deadlock.
    """
    rows = sorted((jti, database_time(at), address) for jti, at, address in uses)
    with connection.cursor() as cursor:
        for start in range(0, len(rows), MAX_ROWS):
            batch = rows[start : start + MAX_ROWS]
            if connection.vendor == "sqlite":
                values: list[Any] = [value for row in batch for value in row]
            else:
                values = [list(column) for column in zip(*batch, strict=True)]
            cursor.execute(uses_statement(connection.vendor, len(batch)), values)


@cache
def uses_statement(vendor: str, rows: int) -> str:
    table = IssuedToken._meta.db_table
    if vendor == "sqlite":
        values = f"(VALUES {', '.join(['(%s, %s, %s)'] * rows)})"
        source = f"(SELECT column1 jti, column2 at, column3 address FROM {values})"  # noqa: S608
    else:
        columns = "%s::text[], %s::timestamptz[], %s::text[]"
        source = f"(SELECT * FROM unnest({columns}) AS uses (jti, at, address))"  # noqa: S608
    return (
        f'UPDATE "{table}" SET last_used_at = uses.at, last_used_from = uses.address '  # noqa: S608
        f'FROM {source} AS uses WHERE "{table}".jti = uses.jti'
    )


def database_time(at: float) -> datetime | str:
    """A time (seconds since the epoch) in the form of this database's driver."""
    if connection.vendor == "sqlite":
        return sqlite_time(at)
    return datetime.fromtimestamp(at, UTC)


def sqlite_time(at: float) -> str:
    """A time as Django writes it to SQLite."""
    second, part = divmod(at, 1)
    micros = round(part * 1e6)
    if micros in (0, 1_000_000):
        return sqlite_second(int(second) + micros // 1_000_000)
    return f"{sqlite_second(int(second))}.{micros:06}"


@lru_cache(maxsize=64)
def sqlite_second(at: int) -> str:
    """Events of one batch share a second or two, and a datetime costs 3 us."""
    return str(datetime.fromtimestamp(at, UTC).replace(tzinfo=None))
