"""Inserts millions of rows, generated inside the database from numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection
from django.db.models import Model

ARGUMENT = r"\(((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)"
"""The argument of a function: text with brackets up to two levels deep."""

SQLITE = {
    "HEX": r"printf('%08x%024x', (\1) * 2654435761 % 4294967296, \1)",
    "UUID": r"printf('%032x', \1)",
    "AGO": r"strftime('%Y-%m-%d %H:%M:%f', 'now', -(\1) || ' seconds')",
}
POSTGRESQL = {
    "HEX": r"lpad(to_hex((\1) * 2654435761 % 4294967296), 8, '0')"
    r" || lpad(to_hex((\1)::bigint), 24, '0')",
    "UUID": r"lpad(to_hex((\1)::bigint), 32, '0')::uuid",
    "AGO": r"now() - make_interval(secs => (\1))",
}


def translate(vendor: str, expression: str) -> str:
    """Replace HEX(n) (32 scattered digits), UUID(n) and AGO(seconds) by SQL."""
    for name, written in (SQLITE if vendor == "sqlite" else POSTGRESQL).items():
        expression = re.sub(rf"\b{name}{ARGUMENT}", written, expression)
    return expression


def numbers(count: int) -> str:
    """A relation `s` with one bigint column `i`, 0 to count - 1."""
    if connection.vendor == "sqlite":
        limit = f"SELECT i + 1 FROM n WHERE i + 1 < {count}"
        return (
            f"(WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL {limit}) SELECT i FROM n) s"
        )
    return f"(SELECT i::bigint FROM generate_series(0, {count - 1}) AS g(i)) s"


def insert(model: type[Model], count: int, **expressions: str) -> None:
    """Add `count` rows: columns are SQL expressions over `i`, or the default."""
    if not count:
        return
    columns, values, defaults = [], [], []
    for field in model._meta.concrete_fields:
        if field.name in expressions:
            written = translate(connection.vendor, expressions[field.name])
            if field.db_type(connection) == "bytea":
                written = f"decode({written}, 'hex')"
            values.append(written.replace("%", "%%"))
        elif field.primary_key:
            continue
        else:
            values.append("%s")
            default = field.get_default()
            defaults.append(field.get_db_prep_save(default, connection))
        columns.append(connection.ops.quote_name(str(field.column)))
    table = connection.ops.quote_name(model._meta.db_table)
    chosen = f"SELECT {', '.join(values)} FROM {numbers(count)}"
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table} ({', '.join(columns)}) {chosen}", defaults)


@contextmanager
def bare_tables(*models: type[Model]) -> Iterator[None]:
    """Drop triggers and secondary indexes of the tables; restore them afterwards."""
    tables = [model._meta.db_table for model in models]
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            restore = _strip_sqlite(cursor, tables)
        else:
            restore = _strip_postgresql(cursor, tables)
        try:
            yield
        finally:
            for statement in restore:
                cursor.execute(statement)


def _strip_sqlite(cursor: Any, tables: list[str]) -> list[str]:
    marks = ", ".join(["%s"] * len(tables))
    cursor.execute("PRAGMA cache_size = -400000")
    cursor.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND "
        f"type IN ('trigger', 'index') AND tbl_name IN ({marks}) ORDER BY type",
        tables,
    )
    objects = cursor.fetchall()
    for kind, name, _sql in objects:
        cursor.execute(f'DROP {kind} "{name}"')
    return [sql for _kind, _name, sql in objects]


def _strip_postgresql(cursor: Any, tables: list[str]) -> list[str]:
    cursor.execute("SET maintenance_work_mem = '256MB'")
    cursor.execute("SET session_replication_role = replica")
    cursor.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = ANY(%s) AND NOT "
        "EXISTS (SELECT 1 FROM pg_constraint WHERE conname = indexname)",
        [tables],
    )
    indexes = cursor.fetchall()
    for name, _definition in indexes:
        cursor.execute(f'DROP INDEX "{name}"')
    return [*(sql for _name, sql in indexes), "SET session_replication_role = DEFAULT"]


def reset_ids(*models: type[Model]) -> None:
    """Advance PostgreSQL's sequences past the inserted ids."""
    if connection.vendor == "sqlite":
        return
    with connection.cursor() as cursor:
        for model in models:
            table = model._meta.db_table
            cursor.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), "
                f'COALESCE((SELECT MAX(id) FROM "{table}"), 1))'
            )
