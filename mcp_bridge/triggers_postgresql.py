"""Change triggers in PostgreSQL's SQL: noted for each statement, numbered at commit.

Numbers are given by a deferred trigger under the lock of the counter's one row: they
follow the order of commits, and the lock is held for the end of a commit only, when
a transaction has all its other locks.
"""

from __future__ import annotations

from typing import Any

from mcp_bridge.changes import KEPT, Watched, watched

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


def wanted() -> dict[str, str]:
    """Trigger -> body of its function; every one must also be enabled always."""
    made = {"portico_number": NUMBER}
    for table in watched():
        for event in _events(table):
            made[f"portico_{table.table}_{event}"] = _body(table, event)
    return made


def statements() -> list[str]:
    """What install executes."""
    bodies = wanted()
    made = [HEAD.format(name=name, body=body) for name, body in bodies.items()]
    made.append(
        f"CREATE CONSTRAINT TRIGGER portico_number AFTER INSERT ON {CHANGE} "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION portico_number()"
    )
    tables = {"portico_number": CHANGE}
    for table in watched():
        for event, seen in _events(table).items():
            name = f"portico_{table.table}_{event}"
            tables[name] = table.table
            made.append(
                f"CREATE TRIGGER {name} AFTER {event.upper()} ON {table.table} {seen}"
                f"FOR EACH STATEMENT EXECUTE FUNCTION {name}()"
            )
    # Always: a session that plays a replica (a restore, for one) skips the others.
    made += [
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}"
        for name, table in tables.items()
    ]
    return made


def installed(cursor: Any) -> dict[str, str]:
    """Trigger -> body of its function, of those that are enabled always."""
    cursor.execute(
        "SELECT tgname, prosrc FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid "
        "WHERE tgname LIKE 'portico\\_%' AND tgenabled = 'A' AND tgrelid IN ("
        "SELECT oid FROM pg_class WHERE pg_table_is_visible(oid))"
    )
    return dict(cursor.fetchall())


def drops(cursor: Any) -> list[str]:
    """Statements that remove all of ours."""
    cursor.execute(
        "SELECT tgname, tgrelid::regclass::text FROM pg_trigger "
        "WHERE tgname LIKE 'portico\\_%' AND NOT tgisinternal"
    )
    return [f"DROP TRIGGER {name} ON {table}" for name, table in cursor.fetchall()]


def _events(table: Watched) -> dict[str, str]:
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


def _body(table: Watched, event: str) -> str:
    if event == "truncate":
        return NOTE_ALL
    key = f"{table.key}::text" if table.key else "''"
    return NOTE.format(kind=table.kind, key=key, rows=_rows(table, event))


def _rows(table: Watched, event: str) -> str:
    columns = ", ".join(f'"{column}"' for column in table.columns)
    before, after = f"SELECT {columns} FROM before", f"SELECT {columns} FROM after"
    if event == "insert":
        return after
    if event == "delete":
        return before + (" WHERE expires_at > now()" if table.while_live else "")
    return f"({before} EXCEPT {after}) UNION ALL ({after} EXCEPT {before})"
