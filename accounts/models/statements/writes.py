"""INSERT and UPDATE statements whose SQL is written once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeVar

from django.db import connections, models
from django.db.models import Model

from accounts.models.statements.execution import cursor_of, fetch

AnyField = Any
Row = TypeVar("Row", bound=Model)
TEXTS = frozenset((models.CharField, models.TextField))
"""Fields whose text is stored as it is; most columns are such."""


class QuickInserts(models.QuerySet[Row]):
    """A queryset that inserts plain values without Django's compiler.

    `bulk_create` ends here and, with `base_manager_name`, `save`. So their checks and
    signals stay.
    """

    def _insert(
        self,
        objs: Sequence[Model],
        fields: Sequence[AnyField],
        returning_fields: Sequence[AnyField] | None = None,
        raw: bool = False,
        using: str | None = None,
        **conflicts: Any,
    ) -> Any:
        connection = connections[using or self.db]
        if not raw and not any(conflicts.values()) and returns_rows(connection):
            values = values_of(objs, fields, connection)
            if not any(hasattr(value, "as_sql") for value in values):
                return insert_values(connection, objs, fields, values)
        more = {"raw": raw, "using": using, **conflicts}
        return super()._insert(objs, fields, returning_fields, **more)  # type: ignore[misc]

    _insert.alters_data = True  # type: ignore[attr-defined]
    _insert.queryset_only = False  # type: ignore[attr-defined]


def returns_rows(connection: Any) -> bool:
    """Whether INSERT returns the new keys (SQLite 3.35 and newer)."""
    return bool(connection.features.can_return_rows_from_bulk_insert)


def values_of(
    objs: Sequence[Model], fields: Sequence[AnyField], connection: Any
) -> list[Any]:
    """The values of all rows, as the database's driver takes them."""
    return [
        value
        if type(value := field.pre_save(row, add=True)) is str and type(field) in TEXTS
        else field.get_db_prep_save(value, connection)
        for row in objs
        for field in fields
    ]


def insert_values(
    connection: Any,
    objs: Sequence[Model],
    fields: Sequence[AnyField],
    values: Sequence[Any],
) -> list[Any]:
    """Insert rows; returns a row with the new key for each. Raises django.db.Error."""
    columns = tuple(str(field.column) for field in fields)
    sql = insert_sql(type(objs[0]), columns, len(objs))
    return fetch(connection, sql, values)


@lru_cache(maxsize=128)
def insert_sql(model: type[Model], columns: tuple[str, ...], rows: int) -> str:
    """Both databases quote names alike and return keys in the order of the values."""
    names = ", ".join(f'"{name}"' for name in columns)
    row = f"({', '.join(['%s'] * len(columns))})"
    table, key = model._meta.db_table, model._meta.pk.column
    values = ", ".join([row] * rows)
    return f'INSERT INTO "{table}" ({names}) VALUES {values} RETURNING "{key}"'  # noqa: S608


def update_columns(row: Model, names: Sequence[str]) -> None:
    """Write these fields of a stored row, without signals. Raises django.db.Error."""
    connection = connections["default"]
    meta: Any = row._meta
    fields = [meta.get_field(name) for name in names]
    sql = update_sql(type(row), tuple(str(field.column) for field in fields))
    values = [f.get_db_prep_save(getattr(row, f.attname), connection) for f in fields]
    with cursor_of(connection) as cursor:
        cursor.execute(sql, [*values, row.pk])


@lru_cache(maxsize=32)
def update_sql(model: type[Model], columns: tuple[str, ...]) -> str:
    changes = ", ".join(f'"{name}" = %s' for name in columns)
    table, key = model._meta.db_table, model._meta.pk.column
    return f'UPDATE "{table}" SET {changes} WHERE "{key}" = %s'  # noqa: S608


def insert_rows(rows: Sequence[Model]) -> None:
    """Insert new rows of one model, without signals; each gets its key.

    Raises django.db.Error.
    """
    connection = connections["default"]
    if not returns_rows(connection):
        for row in rows:
            row.save(force_insert=True)
        return
    fields = [f for f in rows[0]._meta.concrete_fields if not f.primary_key]
    keys = insert_values(connection, rows, fields, values_of(rows, fields, connection))
    for row, (key,) in zip(rows, keys, strict=True):
        row.pk, row._state.adding, row._state.db = key, False, connection.alias


def delete_row(model: type[Model], key: Any) -> None:
    """Delete a row to which nothing refers, without signals."""
    table, column = model._meta.db_table, model._meta.pk.column
    with cursor_of(connections["default"]) as cursor:
        cursor.execute(f'DELETE FROM "{table}" WHERE "{column}" = %s', [key])  # noqa: S608
