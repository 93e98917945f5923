"""Change triggers for SQLite: each row is logged and numbered at once.

SQLite has one writer at a time, so the numbers follow the order of commits.
"""

from __future__ import annotations

from typing import Any

from mcp_bridge.cache.watched_tables import (
    LOG_LENGTH,
    ChangeScope,
    UntrackedTable,
    WatchedTable,
    watched_tables,
)

CHANGE, COUNTER = "mcp_bridge_loggedchange", "mcp_bridge_changecounter"


def expected_triggers() -> dict[str, str]:
    """Name -> the CREATE statement, as SQLite stores it."""
    created: dict[str, str] = {}
    for table in watched_tables():
        for event, condition, keys in _events(table):
            name = f"portico_{table.table}_{event}"
            created[name] = _trigger(name, table, event, condition, keys)
    return created


def create_statements() -> list[str]:
    """The statements that create all triggers."""
    return list(expected_triggers().values())


def installed(cursor: Any) -> dict[str, str]:
    """Name -> CREATE statement of the triggers in the database."""
    cursor.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' "
        "AND name LIKE 'portico!_%' ESCAPE '!'"
    )
    return dict(cursor.fetchall())


def outside(cursor: Any) -> list[UntrackedTable]:
    """Always empty: every writer of the file fires its triggers."""
    return []


def marks(cursor: Any) -> tuple[Any, ...]:
    """Differs after any change to a trigger, even one that was undone."""
    cursor.execute("PRAGMA schema_version")
    return tuple(cursor.fetchone())


def drop_statements(cursor: Any) -> list[str]:
    """The statements that drop all of Portico's triggers."""
    return [f'DROP TRIGGER "{name}"' for name in installed(cursor)]


def _events(table: WatchedTable) -> list[tuple[str, str, list[str]]]:
    """(event, WHEN condition, rows whose key is logged) of a table's triggers."""
    changed = [f'OLD."{c}" IS NOT NEW."{c}"' for c in table.columns]
    events = [("update", " OR ".join(changed), ["OLD", "NEW"])]
    if table.insert:
        events.append(("insert", "", ["NEW"]))
    if table.delete:
        live = "OLD.\"expires_at\" > strftime('%Y-%m-%d %H:%M:%f', 'now')"
        events.append(("delete", live if table.while_live else "", ["OLD"]))
        same = " OR ".join(f'"{c}" = NEW."{c}"' for c in table.unique)
        exists = f'EXISTS (SELECT 1 FROM "{table.table}" WHERE {same})'
        events.append(("replace", exists, []))
    return events


def _trigger(
    name: str, table: WatchedTable, event: str, condition: str, keys: list[str]
) -> str:
    timing = "BEFORE INSERT" if event == "replace" else f"AFTER {event.upper()}"
    when = f"WHEN {condition} " if condition else ""
    notes = " ".join(_notes(table, keys))
    return (
        f'CREATE TRIGGER "{name}" {timing} ON "{table.table}" FOR EACH ROW {when}'
        f"BEGIN {notes} "
        f"DELETE FROM {CHANGE} "
        f"WHERE number <= (SELECT number FROM {COUNTER}) - {LOG_LENGTH}; END"
    )


def _notes(table: WatchedTable, keys: list[str]) -> list[str]:
    """One log entry for each row, or a single one if rows do not matter."""
    if not keys:
        return [_note(ChangeScope.ALL, "''")]
    if not table.key:
        return [_note(table.kind, "''")]
    notes = [_note(table.kind, f'{keys[0]}."{table.key}"')]
    if len(keys) > 1:
        moved = f'OLD."{table.key}" IS NOT NEW."{table.key}"'
        notes.append(_note(table.kind, f'NEW."{table.key}"', f"({moved})"))
    return notes


def _note(kind: ChangeScope, key: str, where: str = "1") -> str:
    return (
        f"UPDATE {COUNTER} SET number = number + {where}; "
        f"INSERT INTO {CHANGE} (number, kind, key) "
        f"SELECT number, '{kind}', {key} FROM {COUNTER} WHERE {where};"
    )
