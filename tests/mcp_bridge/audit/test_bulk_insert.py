"""The SQL that writes call events and last uses of tokens."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from django.db import (
    DataError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    connection,
    transaction,
)

from accounts.models import AuditEvent, IssuedToken, User
from accounts.tokens.issue import issue_tokens
from mcp_bridge.audit import bulk_insert
from mcp_bridge.audit.bulk_insert import CallEvent, Use

NOON = 1_800_000_000.25


@pytest.mark.parametrize(
    "at", [0.0, NOON, 1_800_000_000.0, 1_800_000_000.000_001, 1_800_000_000.999_999_9]
)
def test_a_time_in_sqlite_is_as_django_writes_it(at: float) -> None:
    moment = datetime.fromtimestamp(at, UTC)
    assert bulk_insert.sqlite_time(at) == str(moment.replace(tzinfo=None))


def event(name: str, **fields: Any) -> CallEvent:
    return CallEvent(NOON, name, "allowed", "granted", **fields)


def stored(name: str) -> int:
    return AuditEvent.objects.filter(action=name).count()


def test_a_statement_stays_below_the_limits_of_the_databases() -> None:
    names, defaults = bulk_insert.event_columns()
    assert bulk_insert.MAX_ROWS * len(names) < 32_766
    assert len(names) == len(CallEvent._fields) + len(defaults)


def test_every_column_of_an_event_is_written_once() -> None:
    """Those that the ORM would write, except the key."""
    names, _defaults = bulk_insert.event_columns()
    fields = AuditEvent._meta.local_concrete_fields
    assert sorted(names) == sorted(str(f.column) for f in fields if not f.primary_key)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_more_events_than_a_statement_holds_are_all_written(
    db: None, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(bulk_insert, "MAX_ROWS", 2)
    bulk_insert.insert_events([event("many", object=str(n)) for n in range(count)])
    rows = AuditEvent.objects.filter(action="many").order_by("pk")
    assert [row.object for row in rows] == [str(n) for n in range(count)]


TEXTS = ["action", "decision", "reason", "actor", "address", "object", "via"]


@pytest.mark.parametrize("column", TEXTS)
def test_an_event_that_cannot_be_stored_is_an_error(db: None, column: str) -> None:
    """It is not left out in silence: the writer then says which event was lost."""
    assert not AuditEvent._meta.get_field(column).null
    nothing: Any = {column: None}
    bad = event("bad")._replace(**nothing)
    with pytest.raises(IntegrityError), transaction.atomic():
        bulk_insert.insert_events([event("good"), bad])
    assert stored("good") == stored("bad") == 0


def test_no_events_are_no_statement(db: None) -> None:
    before = AuditEvent.objects.count()
    bulk_insert.insert_events([])
    assert AuditEvent.objects.count() == before


class Connection:
    """The connection of the audit thread, and what happens to it."""

    wrap_database_errors = nullcontext()

    def __init__(self) -> None:
        self.connection: object = object()
        self.did: list[str] = []
        self.usable = True
        self.error: Exception | None = None

    def is_usable(self) -> bool:
        self.did.append("test")
        return self.usable

    def close(self) -> None:
        self.did.append("close")

    def ensure_connection(self) -> None:
        self.did.append("open")

    def insert(self, events: Sequence[CallEvent]) -> None:
        self.did.append("insert")
        if self.error is not None:
            raise self.error


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Connection:
    found = Connection()
    monkeypatch.setattr(bulk_insert, "connection", found)
    monkeypatch.setattr(bulk_insert, "insert_many", found.insert)
    return found


@pytest.mark.parametrize(
    ("idle", "usable", "did"),
    [
        (29.0, False, ["open", "insert"]),
        (31.0, True, ["test", "open", "insert"]),
        (31.0, False, ["test", "close", "open", "insert"]),
    ],
)
def test_a_connection_is_tested_after_half_a_minute(
    link: Connection,
    monkeypatch: pytest.MonkeyPatch,
    idle: float,
    usable: bool,
    did: list[str],
) -> None:
    link.usable = usable
    monkeypatch.setattr(bulk_insert, "last_at", time.monotonic() - idle)
    bulk_insert.insert_events([event("one")])
    assert link.did == did
    link.did.clear()
    bulk_insert.insert_events([event("one")])
    assert link.did == ["open", "insert"], "the write is the test of the connection"


def test_a_connection_that_is_not_open_is_not_tested(
    link: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_insert, "last_at", 0.0)
    link.connection = None
    bulk_insert.insert_events([event("one")])
    assert link.did == ["open", "insert"]


@pytest.mark.parametrize(
    ("error", "closed"),
    [
        (OperationalError("gone"), True),
        (InterfaceError("gone"), True),
        (DataError("too long"), False),
    ],
)
def test_a_lost_connection_is_closed_and_tested_again(
    link: Connection, monkeypatch: pytest.MonkeyPatch, error: Exception, closed: bool
) -> None:
    monkeypatch.setattr(bulk_insert, "last_at", 0.0)
    link.error = error
    with pytest.raises(type(error)):
        bulk_insert.insert_events([event("one")])
    assert link.did == ["test", "open", "insert", *["close"] * closed]
    assert bulk_insert.last_at == 0.0


def test_an_error_of_the_driver_is_one_of_django(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer catches Django's errors only."""

    def failing(events: Sequence[CallEvent]) -> None:
        raise (sqlite3 if connection.vendor == "sqlite" else psycopg).DataError("odd")

    monkeypatch.setattr(bulk_insert, "insert_many", failing)
    with pytest.raises(DataError):
        bulk_insert.insert_events([event("one")])


def test_last_uses_reach_their_own_tokens_in_any_number(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_insert, "MAX_ROWS", 2)
    rows = [
        issue_tokens(alice, issued_via="password", scope="mcp", refresh=False).row
        for _ in range(6)
    ]
    uses = [Use(row.jti, NOON + n, f"::{n}") for n, row in enumerate(rows[:5])]
    bulk_insert.update_last_used([*uses, Use("deleted", NOON, "::f")])
    for n, row in enumerate(rows[:5]):
        row.refresh_from_db()
        assert row.last_used_at == datetime.fromtimestamp(NOON + n, UTC)
        assert row.last_used_from == f"::{n}"
    rows[5].refresh_from_db()
    assert rows[5].last_used_at is None and rows[5].last_used_from in ("", None)
    assert IssuedToken.objects.filter(last_used_from="::f").count() == 0


def test_tokens_are_written_in_the_order_of_their_ids(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers that lock rows in different orders would deadlock."""
    asked: list[Any] = []

    def note(execute: Any, statement: str, values: Any, *more: Any) -> Any:
        asked.append(values)
        return execute(statement, values, *more)

    monkeypatch.setattr(bulk_insert, "MAX_ROWS", 2)
    with connection.execute_wrapper(note):
        bulk_insert.update_last_used([Use(jti, NOON, "") for jti in "cabed"])
    lite = connection.vendor == "sqlite"
    jtis = [values[::3] if lite else values[0] for values in asked]
    assert jtis == [["a", "b"], ["c", "d"], ["e"]]


@pytest.mark.parametrize("vendor", ["sqlite", "postgresql"])
def test_the_statements_of_both_databases(vendor: str) -> None:
    """They name three values a row; PostgreSQL gets columns, whatever their length."""
    statement = bulk_insert.uses_statement(vendor, 2)
    if vendor == "sqlite":
        assert statement.count("(%s, %s, %s)") == 2
    else:
        assert statement.count("%s::") == 3
        assert bulk_insert.uses_statement(vendor, 9) == statement
    assert 'WHERE "accounts_issuedtoken".jti = uses.jti' in statement


@pytest.mark.once
def test_both_databases_get_their_own_form_of_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On PostgreSQL one COPY of all events, without the limit of SQLite."""
    copied: list[tuple[Any, ...]] = []
    statements: list[str] = []

    class Copy:
        def __enter__(self) -> Copy:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def write_row(self, row: tuple[Any, ...]) -> None:
            copied.append(row)

        def copy(self, statement: str) -> Copy:
            statements.append(statement)
            return self

        def cursor(self) -> Copy:
            return self

        def execute(self, statement: str, values: list[Any]) -> None:
            statements.append(statement)
            copied.append(tuple(values))

    class Fake:
        vendor = "postgresql"
        connection = Copy()

        def cursor(self) -> Copy:
            return Copy()

    monkeypatch.setattr(bulk_insert, "connection", Fake())
    monkeypatch.setattr(bulk_insert, "MAX_ROWS", 2)
    names, defaults = bulk_insert.event_columns()
    bulk_insert.insert_many([event(str(n), actor_id=n) for n in range(3)])
    (statement,) = statements
    assert statement.startswith('COPY "accounts_auditevent" ("at", "action", ')
    assert statement.count('"') == 2 * len(names) + 2 and statement.endswith("STDIN")
    assert [row[1] for row in copied] == ["0", "1", "2"]
    assert copied[0][0] == datetime.fromtimestamp(NOON, UTC)
    assert all(len(row) == len(names) for row in copied)
    assert tuple(copied[0][len(CallEvent._fields) :]) == defaults
    ids = [names.index("token_id"), names.index("request_id")]
    assert all(type(copied[0][index]) is bytes for index in ids)
    copied.clear()
    bulk_insert.update_last_used([Use(jti, NOON, f"::{jti}") for jti in "cab"])
    moment = datetime.fromtimestamp(NOON, UTC)
    assert copied == [
        (["a", "b"], [moment, moment], ["::a", "::b"]),
        (["c"], [moment], ["::c"]),
    ]


def test_the_arguments_of_a_call_are_in_no_log() -> None:
    """A lost event is logged; its arguments may be confidential."""
    shown = repr(event("tool.called", arguments='{"password":"s3cr3t"}', object="x"))
    assert "s3cr3t" not in shown and "arguments" not in shown
    assert "action='tool.called'" in shown and "object='x'" in shown
