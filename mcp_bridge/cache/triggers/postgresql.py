"""Change triggers in PostgreSQL's SQL: noted for each statement, numbered at commit.

Numbers are given by a deferred trigger under the lock of the counter's one row: they
follow the order of commits, and the lock is held for the end of a commit only, when
a transaction has all its other locks.
"""

from __future__ import annotations

from typing import Any

from mcp_bridge.cache.watched_tables import KEPT, Outside, WatchedTable, watched_tables

CHANGE, COUNTER = "mcp_bridge_change", "mcp_bridge_changecounter"
MANY = 1000
"""A transaction that concerns more is noted as one that concerns everybody."""

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
    LIMIT {MANY});
  IF cardinality(fresh) = 0 THEN
    RETURN NULL;
  END IF;
  IF (SELECT count(*) FROM {CHANGE} WHERE number IS NULL) + cardinality(fresh)
     >= {MANY} THEN
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
  -- Fired for each note; the first numbers all, and the others see it at once.
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
  DELETE FROM {CHANGE} WHERE number <= last - {KEPT};
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
"""The transactions that wrote these rows of the catalogue last."""


def expected_triggers() -> dict[str, str]:
    """Trigger -> body of its function; every one must also be enabled always."""
    made = {"portico_number": NUMBER}
    for table in watched_tables():
        for event in _events(table):
            made[f"portico_{table.table}_{event}"] = _body(table, event)
    return made


def owners() -> dict[str, str]:
    """Trigger -> the table it is on."""
    found = {"portico_number": CHANGE}
    for table in watched_tables():
        for event in _events(table):
            found[f"portico_{table.table}_{event}"] = table.table
    return found


def statements() -> list[str]:
    """What install executes."""
    bodies = expected_triggers()
    made = [HEAD.format(name=name, body=body) for name, body in bodies.items()]
    made.append(
        f"CREATE CONSTRAINT TRIGGER portico_number AFTER INSERT ON {CHANGE} "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION portico_number()"
    )
    for table in watched_tables():
        for event, seen in _events(table).items():
            name = f"portico_{table.table}_{event}"
            made.append(
                f"CREATE TRIGGER {name} AFTER {event.upper()} ON {table.table} {seen}"
                f"FOR EACH STATEMENT EXECUTE FUNCTION {name}()"
            )
    # Always: a session that plays a replica (a restore, for one) skips the others.
    made += [
        f"ALTER TABLE {owner} ENABLE ALWAYS TRIGGER {name}"
        for name, owner in owners().items()
    ]
    return made


def installed(cursor: Any) -> dict[str, str]:
    """Trigger -> body of its function, of those that are enabled always.

    A trigger on a table that was renamed and made again does not count.
    """
    cursor.execute(
        "SELECT tgname, relname, prosrc FROM pg_trigger "
        "JOIN pg_proc ON pg_proc.oid = tgfoid JOIN pg_class ON pg_class.oid = tgrelid "
        "WHERE tgname LIKE 'portico\\_%' AND tgenabled = 'A' AND tgqual IS NULL "
        "AND pg_table_is_visible(pg_class.oid)"
    )
    on = owners()
    return {
        name: text for name, table, text in cursor.fetchall() if on.get(name) == table
    }


def outside(cursor: Any) -> list[Outside]:
    """Tables whose rows are also changed where none of these triggers fires.

    Statement triggers do not fire in apply workers, nor those of a table for
    statements that name its parent or its child.
    """
    tables = sorted({COUNTER, *owners().values()})
    cursor.execute(OUTSIDE, [tables, tables])
    return [Outside(table, why) for table, why in cursor.fetchall()]


def marks(cursor: Any) -> tuple[Any, ...]:
    """What differs after a trigger was changed, even if it was changed back."""
    cursor.execute(MARKS, [sorted(set(owners().values()))])
    return tuple(cursor.fetchall())


def drops(cursor: Any) -> list[str]:
    """Statements that remove all of ours."""
    cursor.execute(
        "SELECT tgname, tgrelid::regclass::text FROM pg_trigger "
        "WHERE tgname LIKE 'portico\\_%' AND NOT tgisinternal"
    )
    return [f"DROP TRIGGER {name} ON {table}" for name, table in cursor.fetchall()]


def _events(table: WatchedTable) -> dict[str, str]:
    """Event -> how the trigger names the rows before and after."""
    found = {
        "update": "REFERENCING OLD TABLE AS before NEW TABLE AS after ",
        "truncate": "",
    }
    if table.insert:
        found["insert"] = "REFERENCING NEW TABLE AS after "
    if table.delete:
        found["delete"] = "REFERENCING OLD TABLE AS before "
    return found


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
