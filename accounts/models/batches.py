"""Deletes any number of rows in batches: constant memory and short transactions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import QuerySet

BATCH_ROWS = 1000
"""Rows in memory, and keys in one statement."""

Progress = Callable[[int], object]
"""Called after each commit with the number of its rows."""


def unreported(rows: int) -> None:
    """The Progress of callers that need none."""


def delete_in_batches(
    rows: QuerySet[Any], by: str, progress: Progress = unreported
) -> int:
    """Delete these rows; return their number, without rows deleted by cascade.

    `by` is the column of an index that finds them. A single `delete()` would read every
    row into memory, and lock all of them until the end.
    """
    total, found = 0, rows.order_by(by).values_list("pk", by)
    batch = list(found[:BATCH_ROWS])
    while batch:
        # The condition is repeated: a row may have changed since it was read.
        keys = [key for key, _value in batch]
        counts = rows.filter(pk__in=keys).order_by().delete()[1]
        deleted = counts.get(rows.model._meta.label, 0)
        total += deleted
        progress(deleted)
        # From the last value on, so that the database skips what was just deleted.
        batch = list(found.filter(**{f"{by}__gte": batch[-1][1]})[:BATCH_ROWS])
    return total
