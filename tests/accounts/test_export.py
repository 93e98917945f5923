"""Audit events as files: what a spreadsheet must not run, and streaming."""

from __future__ import annotations

import csv
import io
import json

import pytest

from accounts.audit import record
from accounts.export import RISKY, cell, pieces
from accounts.models import AuditEvent
from accounts.models.seals import COLUMNS


@pytest.mark.parametrize("start", RISKY)
def test_cells_never_begin_as_a_formula_does(start: str) -> None:
    """OWASP: CSV injection."""
    assert cell(f"{start}1+1") == f"'{start}1+1"
    assert cell("plain") == "plain" and cell(-1.5) == -1.5 and cell(None) is None


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_every_column_of_every_event_is_there(db: None, form: str) -> None:
    """ours: in pieces, which together are one file."""
    for number in range(3):
        changes = {"name": ["=SUM(A1)", number]}
        record("test.exported", actor="=cmd", object='a,b\n"c"', changes=changes)
    found = AuditEvent.objects.filter(action="test.exported").order_by("id")
    text = b"".join(pieces(found, form)).decode()
    if form == "csv":
        head, *rows = list(csv.reader(io.StringIO(text)))
        assert tuple(head) == COLUMNS and len(rows) == 3
        assert rows[0][COLUMNS.index("actor")] == "'=cmd"
    else:
        lines = [json.loads(line) for line in text.splitlines()]
        assert [tuple(line) for line in lines] == [COLUMNS] * 3
        assert lines[2]["changes"] == {"name": ["=SUM(A1)", 2]}
        assert lines[0]["actor"] == "=cmd"
