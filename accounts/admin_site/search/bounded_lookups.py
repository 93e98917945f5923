"""Queries of the search that stay fast in large tables.

Each uses an index, or reads a bounded number of rows, and has a limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.db.models import Case, Q, Subquery, Value, When

from accounts.admin_site.search.kinds import PER_KIND

SCANNED = 50_000
"""Newest rows in which text is searched inside of names: no index serves that."""
MOST_PARTS = 5
"""Words of a search that are compared; the others are ignored."""


def beginning_with(rows: Any, word: str, column: str) -> Any:
    """Rows whose indexed column begins with the word, in usual spellings of case."""
    condition = Q()
    for spelling in sorted({word, word.lower(), word.upper(), word.capitalize()}):
        condition |= Q(**{f"{column}__prefix": spelling})
    return rows.filter(condition).order_by(column)[:PER_KIND]


def containing(rows: Any, word: str, *columns: str) -> Any:
    """Newest rows that contain each part of the word, in any of the columns.

    Rows come first whose first column is the word or begins with it.
    """
    condition = Q()
    for part in word.split()[:MOST_PARTS]:
        condition &= in_any(columns, part)
    first, *_rest = columns
    nearness = Case(
        When(**{f"{first}__iexact": word}, then=Value(0)),
        When(**{f"{first}__istartswith": word}, then=Value(1)),
        default=Value(2),
    )
    return newest(rows).filter(condition).order_by(nearness, first)[:PER_KIND]


def in_any(columns: Iterable[str], part: str) -> Q:
    """Whether one of the columns contains the text, whatever its case."""
    condition = Q()
    for column in columns:
        condition |= Q(**{f"{column}__icontains": part})
    return condition


def newest(rows: Any) -> Any:
    """The newest SCANNED rows of the table."""
    last = rows.model._base_manager.order_by("-pk").values("pk")[:1]
    return rows.filter(pk__gt=Subquery(last) - Value(SCANNED))


def each_once(*queries: Any) -> Iterator[Any]:
    """Rows of the queries without repeats; a query is sent when it is needed."""
    seen = set()
    for rows in queries:
        for row in rows:
            if row.pk not in seen:
                seen.add(row.pk)
                yield row
