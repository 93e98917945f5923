"""Change triggers in SQLite's SQL: for each row, numbered at once.

SQLite has one writer at a time, so numbers follow the order of commits.
"""

from __future__ import annotations

from typing import Any

from mcp_bridge.cache.watched_tables import (
    KEPT,
    ChangeScope,
    Outside,
    WatchedTable,
    watched_tables,
)

CHANGE, COUNTER = "mcp_bridge_change", "mcp_bridge_changecounter"


def expected_triggers() -> dict[str, str]:
    """Name -> the statement that makes it, as SQLite stores it."""
    made: dict[str, str] = {}
    for table in watched_tables():
        for event, condition, keys in _events(table):
            name = f"portico_{table.table}_{event}"
            made[name] = _trigger(name, table, event, condition, keys)
    return made


def statements() -> list[str]:
    """What install executes."""
    return list(expected_triggers().values())


def installed(cursor: Any) -> dict[str, str]:
    """Name -> statement of what is there."""
    cursor.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' "
        "AND name LIKE 'portico!_%' ESCAPE '!'"
    )
    return dict(cursor.fetchall())


def outside(cursor: Any) -> list[Outside]:
    """None: whatever writes to the file fires its triggers."""
    return []


def marks(cursor: Any) -> tuple[Any, ...]:
    """What differs after a trigger was changed, even if it was changed back."""
    cursor.execute("PRAGMA schema_version")
    return tuple(cursor.fetchone())


def drops(cursor: Any) -> list[str]:
    """Statements that remove all of ours."""
    return [f'DROP TRIGGER "{name}"' for name in installed(cursor)]


def _events(table: WatchedTable) -> list[tuple[str, str, list[str]]]:
    """(event, WHEN, rows whose key is noted) of each trigger of a table."""
    changed = [f'OLD."{c}" IS NOT NEW."{c}"' for c in table.columns]
    found = [("update", " OR ".join(changed), ["OLD", "NEW"])]
    if table.insert:
        found.append(("insert", "", ["NEW"]))
    if table.delete:
        live = "OLD.\"expires_at\" > strftime('%Y-%m-%d %H:%M:%f', 'now')"
        found.append(("delete", live if table.while_live else "", ["OLD"]))
        same = " OR ".join(f'"{c}" = NEW."{c}"' for c in table.unique)
        there = f'EXISTS (SELECT 1 FROM "{table.table}" WHERE {same})'
        found.append(("replace", there, []))
    return found


def _trigger(
    name: str, table: WatchedTable, event: str, condition: str, keys: list[str]
) -> str:
    timing = "BEFORE INSERT" if event == "replace" else f"AFTER {event.upper()}"
    when = f"WHEN {condition} " if condition else ""
    notes = " ".join(_notes(table, keys))
    return (
        f'CREATE TRIGGER "{name}" {timing} ON "{table.table}" FOR EACH ROW {when}'
        f"BEGIN {notes} "
        f"DELETE FROM {CHANGE} WHERE number <= (SELECT number FROM {COUNTER}) - {KEPT};"
        " END"
    )


def _notes(table: WatchedTable, keys: list[str]) -> list[str]:
    """One note for each row named, or one for all where rows do not matter."""
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
