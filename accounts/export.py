"""Audit events as CSV or JSON lines, piece by piece, whatever their number."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from django.db import connection, transaction

from accounts.models.seals import COLUMNS, Row

AT_ONCE = 500
RISKY = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "＝", "＋", "－", "＠")
"""How a cell begins that a spreadsheet takes for a formula."""


def pieces(queryset: Any, form: str) -> Iterator[bytes]:
    """The events of `queryset` in `form` ("csv" or "jsonl").

    On PostgreSQL by a server-side cursor, for which a transaction stays open; on
    SQLite a transaction would keep every writer waiting, and none is needed.
    """
    held: Any = transaction.atomic() if on_postgres() else nullcontext()
    with held:
        rows = queryset.values_list(*COLUMNS).iterator(chunk_size=AT_ONCE)
        if form == "csv":
            yield csv_text([COLUMNS])
        while batch := list(islice(rows, AT_ONCE)):
            yield FORMS[form](batch)


def on_postgres() -> bool:
    """Whether there are server-side cursors."""
    return connection.vendor == "postgresql"


def csv_lines(rows: list[Row]) -> bytes:
    """Rows as CSV that is safe to open."""
    return csv_text([[cell(value) for value in row] for row in rows])


def csv_text(rows: Any) -> bytes:
    """RFC 4180."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def cell(value: Any) -> Any:
    """A value for a spreadsheet: text never begins as a formula does."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, dict):
        value = json.dumps(value, sort_keys=True)
    if isinstance(value, str) and value.startswith(RISKY):
        return f"'{value}"
    return value


def json_lines(rows: list[Row]) -> bytes:
    """Rows as one JSON object a line."""
    lines = (json.dumps(plain(row), default=str) for row in rows)
    return ("\n".join(lines) + "\n").encode()


def plain(row: Row) -> dict[str, Any]:
    """One event by column."""
    named = dict(zip(COLUMNS, row, strict=True))
    return {**named, "at": named["at"].astimezone(UTC).isoformat()}


FORMS: dict[str, Callable[[list[Row]], bytes]] = {"csv": csv_lines, "jsonl": json_lines}
TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}
