"""The SQL for PostgreSQL, without a server; test_watched_tables.py runs it."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_bridge.cache.triggers import postgresql
from mcp_bridge.cache.watched_tables import LOG_LENGTH, watched_tables

pytestmark = pytest.mark.once
TABLES = {table.table: table for table in watched_tables()}
EVENTS = {
    (name, event)
    for name, table in TABLES.items()
    for event, wanted in {
        "update": True,
        "truncate": True,
        "insert": table.insert,
        "delete": table.delete,
    }.items()
    if wanted
}


class Cursor:
    """Answers each query with prepared rows."""

    def __init__(self, *rows: tuple[Any, ...]) -> None:
        self.rows = list(rows)
        self.asked: list[tuple[str, Any]] = []

    def execute(self, statement: str, values: Any = None) -> None:
        self.asked.append((statement, values))

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self.rows


def test_every_event_of_a_watched_table_has_its_trigger() -> None:
    names = {f"portico_{table}_{event}": table for table, event in EVENTS}
    names["portico_number"] = "mcp_bridge_loggedchange"
    assert postgresql.owners() == names
    assert postgresql.expected_triggers().keys() == names.keys()


def test_every_trigger_is_created_and_fires_always() -> None:
    statements = postgresql.create_statements()
    owners = postgresql.owners()
    for name, table in owners.items():
        always = f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}"
        assert statements.count(always) == 1
        functions = [s for s in statements if f"FUNCTION {name}() RETURNS" in s]
        assert (
            len(functions) == 1 and postgresql.expected_triggers()[name] in functions[0]
        )
        assert "SECURITY DEFINER SET search_path FROM CURRENT" in functions[0]
        order = [functions[0], always]
        assert sorted(order, key=statements.index) == order
    assert len(statements) == 3 * len(owners)


REFERENCES = {
    "update": "REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH",
    "insert": "REFERENCING NEW TABLE AS after FOR EACH",
    "delete": "REFERENCING OLD TABLE AS before FOR EACH",
    "truncate": "FOR EACH",
}


@pytest.mark.parametrize(("table", "event"), sorted(EVENTS))
def test_a_trigger_sees_the_rows_of_its_event(table: str, event: str) -> None:
    name = f"portico_{table}_{event}"
    assert (
        f"CREATE TRIGGER {name} AFTER {event.upper()} ON {table} {REFERENCES[event]} "
        f"STATEMENT EXECUTE FUNCTION {name}()"
    ) in postgresql.create_statements()
    body, watched = postgresql.expected_triggers()[name], TABLES[table]
    if event == "truncate":
        assert body == postgresql.NOTE_ALL
        return
    key = f"SELECT {watched.key}::text FROM" if watched.key else "SELECT '' FROM"
    assert key in body and f"SELECT '{watched.kind}', unnest(fresh)" in body
    assert f"kind = '{watched.kind}')" in body
    columns = ", ".join(f'"{column}"' for column in watched.columns)
    before, after = (f"SELECT {columns} FROM {old}" for old in ("before", "after"))  # noqa: S608
    live = " WHERE expires_at > now()" if watched.while_live else ""
    rows = {
        "insert": after,
        "delete": before + live,
        "update": f"({before} EXCEPT {after}) UNION ALL ({after} EXCEPT {before})",
    }
    assert f"FROM ({rows[event]}) AS touched" in body


def test_the_numbers_are_given_at_commit() -> None:
    assert (
        "CREATE CONSTRAINT TRIGGER portico_number AFTER INSERT ON "
        "mcp_bridge_loggedchange DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
        "EXECUTE FUNCTION portico_number()"
    ) in postgresql.create_statements()
    assert postgresql.MAX_NOTES == 1000
    assert f"WHERE number <= last - {LOG_LENGTH};" in postgresql.NUMBER


def test_a_trigger_counts_only_on_its_own_table() -> None:
    good = ("portico_accounts_user_update", "accounts_user", "body")
    renamed = ("portico_accounts_role_update", "before", "body")
    foreign = ("portico_other", "accounts_user", "body")
    cursor = Cursor(good, renamed, foreign)
    assert postgresql.installed(cursor) == {good[0]: "body"}
    (query,) = (statement for statement, _values in cursor.asked)
    for condition in ("tgenabled = 'A'", "tgqual IS NULL", "pg_table_is_visible"):
        assert condition in query


def test_tables_outside_are_named_with_the_reason() -> None:
    cursor = Cursor(("accounts_user", "subscription"))
    assert postgresql.outside(cursor) == [("accounts_user", "subscription")]
    wanted = sorted([*TABLES, "mcp_bridge_changecounter", "mcp_bridge_loggedchange"])
    assert cursor.asked == [(postgresql.OUTSIDE, [wanted, wanted])]


def test_the_marks_are_of_every_table_with_a_trigger() -> None:
    cursor = Cursor(("trigger", "1", "2"))
    assert postgresql.marks(cursor) == (("trigger", "1", "2"),)
    wanted = sorted([*TABLES, "mcp_bridge_loggedchange"])
    assert cursor.asked == [(postgresql.MARKS, [wanted])]


def test_every_trigger_of_ours_is_dropped() -> None:
    cursor = Cursor(("portico_a", "b"), ("portico_c", "d.e"))
    assert postgresql.drop_statements(cursor) == [
        "DROP TRIGGER portico_a ON b",
        "DROP TRIGGER portico_c ON d.e",
    ]
