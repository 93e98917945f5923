"""Rows as Python values: read in pages of bounded size, digested, and inserted.

Python values are equal on both databases; the stored values are not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.apps import apps
from django.db import DatabaseError, models, transaction

from mcp_bridge.models import ChangeCounter, LoggedChange
from mcp_bridge.transfer.databases import TARGET, CopyRefused

PAGE_ROWS = 500
PAGE_BYTES = 4 * 1024 * 1024
"""A page ends at the first of these; one row may be larger."""
PARAMETERS = 30_000
"""SQLite accepts at most 32,766 parameters in a statement."""

Model = type[models.Model]
Row = tuple[Any, ...]


def copied_models() -> list[Model]:
    """Every table of every app, without the change log: its numbers are local."""
    found = apps.get_models(include_auto_created=True)
    own = (LoggedChange, ChangeCounter)
    managed = [m for m in found if m._meta.managed and not m._meta.proxy]
    return [model for model in managed if model not in own]


def columns(model: Model) -> list[Any]:
    """The fields of the model's own table that can be written."""
    fields = model._meta.local_concrete_fields
    return [field for field in fields if not getattr(field, "generated", False)]


@dataclass
class Digest:
    """The number of rows, and the sum of their hashes: the order does not matter.

    Databases sort text differently.
    """

    rows: int = 0
    total: int = 0

    def add(self, row: bytes) -> None:
        self.rows += 1
        number = int.from_bytes(hashlib.sha256(row).digest(), "big")
        self.total = (self.total + number) % 2**256


def row_bytes(row: Row) -> bytes:
    """The same bytes for equal rows on both databases."""
    return json.dumps(row, sort_keys=True, default=plain_value).encode()


def plain_value(value: Any) -> str:
    """A value that JSON lacks: a time in UTC with its microseconds, bytes as hex."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return str(value)


def pages(model: Model, alias: str, digest: Digest) -> Iterator[list[Row]]:
    """All rows in the order of their keys; adds each to the digest."""
    key = model._meta.pk.attname
    names = [field.attname for field in columns(model)]
    table: Any = models.QuerySet(model, using=alias)
    rows = table.order_by("pk").values_list(key, *names)
    most = min(PAGE_ROWS, PARAMETERS // len(names))
    page, size = list(rows[:1]), 1
    while page:
        before = digest_page(page, digest)
        yield [row[1:] for row in page]
        room = PAGE_BYTES * len(page) // before
        size = max(1, min(most, size * 2, room))
        page = list(rows.filter(**{f"{key}__gt": page[-1][0]})[:size])


def digest_page(page: list[Row], digest: Digest) -> int:
    """Add the rows; return their bytes."""
    size = 0
    for row in page:
        data = row_bytes(row[1:])
        digest.add(data)
        size += len(data)
    return size


def table_digest(model: Model, alias: str) -> Digest:
    digest = Digest()
    for _page in pages(model, alias, digest):
        pass
    return digest


def insert(model: Model, page: list[Row]) -> None:
    """Insert rows into the target with their keys. Raises CopyRefused.

    No save(), no signal and no `auto_now` changes a value.
    """
    names = [field.attname for field in columns(model)]
    objects = [model.from_db(TARGET, names, row) for row in page]
    try:
        with transaction.atomic(TARGET):
            _insert(model, objects)
    except DatabaseError as error:
        raise CopyRefused(refused_row(model, objects, error)) from error


def _insert(model: Model, objects: list[models.Model]) -> None:
    rows: Any = models.QuerySet(model, using=TARGET)
    rows._insert(objects, fields=columns(model), using=TARGET, raw=True)


def refused_row(model: Model, objects: list[models.Model], error: Exception) -> str:
    """Name the first row that the target refuses."""
    for one in objects:
        try:
            with transaction.atomic(TARGET):
                _insert(model, [one])
        except DatabaseError as reason:
            return f"{model._meta.db_table}, row {one.pk}: {first_line(reason)}"
    return f"{model._meta.db_table}: {first_line(error)}"


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
