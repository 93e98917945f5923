"""Export audit events as CSV or JSON lines, in batches of constant size."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from accounts.models.audit.columns import COLUMNS, OPEN_COLUMNS
from accounts.models.audit.digests import Row

BATCH_SIZE = 1000
FORMULA_PREFIXES = (*"=+-@\t\r\n|%", *"＝＋－＠")
"""Spreadsheets read a cell that starts with one of these as a formula."""


def export_events(
    queryset: Any, form: str, *, arguments: bool = False
) -> Iterator[bytes]:
    """Yield the events of `queryset` by time; `form` is "csv" or "jsonl".

    With `arguments`, the recorded arguments of calls are the last column.
    """
    columns = COLUMNS if arguments else OPEN_COLUMNS
    if form == "csv":
        yield csv_text([columns])
    for batch in batches(queryset, columns):
        yield FORMATS[form](batch)


def batches(
    queryset: Any, columns: tuple[str, ...] = OPEN_COLUMNS
) -> Iterator[list[Row]]:
    """Yield rows of these columns; each batch is a query after the last row.

    A server-side cursor would keep a transaction open while a slow client reads.
    """
    backwards = (queryset.query.order_by or ("-at",))[0].startswith("-")
    rows = queryset.order_by(*(("-at", "-id") if backwards else ("at", "id")))
    rest = rows
    while batch := list(rest.values_list(*columns)[:BATCH_SIZE]):
        yield batch
        key, at = batch[-1][:2]
        if backwards:
            rest = rows.filter(at__lte=at).exclude(at=at, id__gte=key)
        else:
            rest = rows.filter(at__gte=at).exclude(at=at, id__lte=key)


def csv_lines(rows: list[Row]) -> bytes:
    """Format rows as CSV without spreadsheet formulas."""
    return csv_text([[spreadsheet_cell(value) for value in row] for row in rows])


def csv_text(rows: Any) -> bytes:
    """Format rows as CSV (RFC 4180)."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def spreadsheet_cell(value: Any) -> Any:
    """Format a value; text that looks like a formula gets a leading apostrophe."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, dict):
        value = json.dumps(value, sort_keys=True)
    if isinstance(value, str) and value.startswith(FORMULA_PREFIXES):
        return f"'{value}"
    return value


def json_lines(rows: list[Row]) -> bytes:
    """Format rows as one JSON object per line."""
    lines = (json.dumps(event_by_column(row), default=str) for row in rows)
    return ("\n".join(lines) + "\n").encode()


def event_by_column(row: Row) -> dict[str, Any]:
    """Return column -> value, with the time in UTC; `arguments` may be missing."""
    named = dict(zip(COLUMNS, row, strict=False))
    return {**named, "at": named["at"].astimezone(UTC).isoformat()}


FORMATS: dict[str, Callable[[list[Row]], bytes]] = {
    "csv": csv_lines,
    "jsonl": json_lines,
}
CONTENT_TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}
