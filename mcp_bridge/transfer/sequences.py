"""Sequences: no database gives out an id that the other has given out before.

The largest id is not enough. Retention deletes the newest audit events, too, and an id
inside a sealed range must not appear again.
"""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

SEQUENCE = "SELECT pg_get_serial_sequence(%s, %s)"


def last_given_id(database: BaseDatabaseWrapper, model: type[models.Model]) -> int:
    """The last id that the table's sequence gave out; 0 if none, or no sequence."""
    key = model._meta.pk
    if not isinstance(key, models.AutoField):
        return 0
    with database.cursor() as cursor:
        if database.vendor == "sqlite":
            query = "SELECT seq FROM sqlite_sequence WHERE name = %s"
            cursor.execute(query, [model._meta.db_table])
            row = cursor.fetchone()
            return int(row[0]) if row else 0
        cursor.execute(SEQUENCE, [f'"{model._meta.db_table}"', key.column])
        name = cursor.fetchone()[0]
        if name is None:
            return 0
        cursor.execute(f"SELECT last_value, is_called FROM {name}")  # noqa: S608
        value, called = cursor.fetchone()
        return int(value) if called else 0


def give_ids_after(
    database: BaseDatabaseWrapper, model: type[models.Model], last: int
) -> None:
    """Make the next id of the table at least `last` + 1."""
    key, table = model._meta.pk, model._meta.db_table
    if not isinstance(key, models.AutoField):
        return
    rows: Any = models.QuerySet(model, using=database.alias)
    last = max(last, rows.aggregate(last=models.Max("pk"))["last"] or 0)
    if not last:
        return
    with database.cursor() as cursor:
        if database.vendor != "sqlite":
            cursor.execute(
                "SELECT setval(pg_get_serial_sequence(%s, %s), %s)",
                [f'"{table}"', key.column, last],
            )
            return
        cursor.execute("DELETE FROM sqlite_sequence WHERE name = %s", [table])
        values = [table, last]
        cursor.execute(
            "INSERT INTO sqlite_sequence (name, seq) VALUES (%s, %s)", values
        )
