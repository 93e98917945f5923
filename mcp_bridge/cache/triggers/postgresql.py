"""Change triggers for PostgreSQL: logged for each statement, numbered at commit.

A deferred trigger assigns the numbers under a lock on the counter's one row. So they
follow the order of commits. The lock lasts for the end of a commit only, when the
transaction has all its other locks.
"""

from __future__ import annotations

from typing import Any

from mcp_bridge.cache.watched_tables import (
    LOG_LENGTH,
    UntrackedTable,
    WatchedTable,
    watched_tables,
)

CHANGE, COUNTER = "mcp_bridge_loggedchange", "mcp_bridge_changecounter"
MAX_NOTES = 1000
"""A transaction with more changes logs one change that concerns everything."""

HEAD = """CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $body${body}$body$"""

NOTE = f"""
DECLARE
  fresh text[];
BEGIN
  IF EXISTS (SELECT FROM {CHANGE} WHERE number IS NULL AND kind = 'all') THEN
    RETURN NULL;
  END IF;
  fresh := ARRAY(
    (SELECT {{key}} FROM ({{rows}}) AS touched
     EXCEPT SELECT key FROM {CHANGE} WHERE number IS NULL AND kind = '{{kind}}')
    LIMIT {MAX_NOTES});
  IF cardinality(fresh) = 0 THEN
    RETURN NULL;
  END IF;
  IF (SELECT count(*) FROM {CHANGE} WHERE number IS NULL) + cardinality(fresh)
     >= {MAX_NOTES} THEN
    DELETE FROM {CHANGE} WHERE number IS NULL;
    INSERT INTO {CHANGE} (kind, key) VALUES ('all', '');
  ELSE
    INSERT INTO {CHANGE} (kind, key) SELECT '{{kind}}', unnest(fresh);
  END IF;
  RETURN NULL;
END"""

NOTE_ALL = f"""
BEGIN
  INSERT INTO {CHANGE} (kind, key) VALUES ('all', '');
  RETURN NULL;
END"""

NUMBER = f"""
DECLARE
  amount bigint;
  last bigint;
BEGIN
  -- This fires for each row; the first call numbers all of them.
  IF NOT EXISTS (SELECT FROM {CHANGE} WHERE id = NEW.id AND number IS NULL) THEN
    RETURN NULL;
  END IF;
  SELECT count(*) INTO amount FROM {CHANGE} WHERE number IS NULL;
  INSERT INTO {COUNTER} (id, epoch, number) VALUES (1, '', amount)
  ON CONFLICT (id) DO UPDATE SET number = {COUNTER}.number + amount
  RETURNING number INTO last;
  UPDATE {CHANGE} AS noted SET number = last - amount + place
  FROM (
    SELECT id, row_number() OVER (ORDER BY id) AS place
    FROM {CHANGE} WHERE number IS NULL
  ) AS numbered
  WHERE noted.id = numbered.id;
  DELETE FROM {CHANGE} WHERE number <= last - {LOG_LENGTH};
  RETURN NULL;
END"""


OUTSIDE = """
SELECT relname, 'subscription' FROM pg_class JOIN pg_subscription_rel ON srrelid = oid
WHERE relname = ANY(%s) AND pg_table_is_visible(oid)
UNION
SELECT relname, 'inheritance' FROM pg_class JOIN pg_inherits
  ON oid IN (inhparent, inhrelid)
WHERE relname = ANY(%s) AND pg_table_is_visible(oid) ORDER BY 1, 2"""

MARKS = r"""
SELECT 'trigger', oid::text, xmin::text FROM pg_trigger WHERE tgname LIKE 'portico\_%%'
UNION ALL
SELECT 'function', oid::text, xmin::text FROM pg_proc WHERE proname LIKE 'portico\_%%'
UNION ALL
SELECT 'table', oid::text, xmin::text FROM pg_class
WHERE relname = ANY(%s) AND pg_table_is_visible(oid) ORDER BY 1, 2"""
"""The transactions that last wrote these rows of the system catalogue."""


def expected_triggers() -> dict[str, str]:
    """Trigger -> body of its function; each must also be ENABLE ALWAYS."""
    bodies = {"portico_number": NUMBER}
    for table in watched_tables():
        for event in _events(table):
            bodies[f"portico_{table.table}_{event}"] = _body(table, event)
    return bodies


def owners() -> dict[str, str]:
    """Trigger -> the table it is on."""
    tables = {"portico_number": CHANGE}
    for table in watched_tables():
        for event in _events(table):
            tables[f"portico_{table.table}_{event}"] = table.table
    return tables


def create_statements() -> list[str]:
    """The statements that create all functions and triggers."""
    bodies = expected_triggers()
    created = [HEAD.format(name=name, body=body) for name, body in bodies.items()]
    created.append(
        f"CREATE CONSTRAINT TRIGGER portico_number AFTER INSERT ON {CHANGE} "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION portico_number()"
    )
    for table in watched_tables():
        for event, references in _events(table).items():
            name = f"portico_{table.table}_{event}"
            created.append(
                f"CREATE TRIGGER {name} AFTER {event.upper()} ON {table.table} "
                f"{references}"
                f"FOR EACH STATEMENT EXECUTE FUNCTION {name}()"
            )
    # ALWAYS: a session in replica mode, such as a restore, skips other triggers.
    created += [
        f"ALTER TABLE {owner} ENABLE ALWAYS TRIGGER {name}"
        for name, owner in owners().items()
    ]
    return created


def installed(cursor: Any) -> dict[str, str]:
    """Trigger -> body of its function, for triggers that are ENABLE ALWAYS.

    A trigger counts only on the table it belongs to, not on a renamed one.
    """
    cursor.execute(
        "SELECT tgname, relname, prosrc FROM pg_trigger "
        "JOIN pg_proc ON pg_proc.oid = tgfoid JOIN pg_class ON pg_class.oid = tgrelid "
        "WHERE tgname LIKE 'portico\\_%' AND tgenabled = 'A' AND tgqual IS NULL "
        "AND pg_table_is_visible(pg_class.oid)"
    )
    tables = owners()
    rows = cursor.fetchall()
    return {name: text for name, table, text in rows if tables.get(name) == table}


def outside(cursor: Any) -> list[UntrackedTable]:
    """Tables whose rows change without firing these triggers.

    Statement triggers do not fire in logical replication's apply workers. Those of a
    table do not fire for statements that name its parent or child.
    """
    tables = sorted({COUNTER, *owners().values()})
    cursor.execute(OUTSIDE, [tables, tables])
    return [UntrackedTable(table, why) for table, why in cursor.fetchall()]


def marks(cursor: Any) -> tuple[Any, ...]:
    """Differs after any change to a trigger, even one that was undone."""
    cursor.execute(MARKS, [sorted(set(owners().values()))])
    return tuple(cursor.fetchall())


def drop_statements(cursor: Any) -> list[str]:
    """The statements that drop all of Portico's triggers."""
    cursor.execute(
        "SELECT tgname, tgrelid::regclass::text FROM pg_trigger "
        "WHERE tgname LIKE 'portico\\_%' AND NOT tgisinternal"
    )
    return [f"DROP TRIGGER {name} ON {table}" for name, table in cursor.fetchall()]


def _events(table: WatchedTable) -> dict[str, str]:
    """Event -> the trigger's REFERENCING clause."""
    clauses = {
        "update": "REFERENCING OLD TABLE AS before NEW TABLE AS after ",
        "truncate": "",
    }
    if table.insert:
        clauses["insert"] = "REFERENCING NEW TABLE AS after "
    if table.delete:
        clauses["delete"] = "REFERENCING OLD TABLE AS before "
    return clauses


def _body(table: WatchedTable, event: str) -> str:
    if event == "truncate":
        return NOTE_ALL
    key = f"{table.key}::text" if table.key else "''"
    return NOTE.format(kind=table.kind, key=key, rows=_rows(table, event))


def _rows(table: WatchedTable, event: str) -> str:
    columns = ", ".join(f'"{column}"' for column in table.columns)
    before, after = f"SELECT {columns} FROM before", f"SELECT {columns} FROM after"
    if event == "insert":
        return after
    if event == "delete":
        return before + (" WHERE expires_at > now()" if table.while_live else "")
    return f"({before} EXCEPT {after}) UNION ALL ({after} EXCEPT {before})"
