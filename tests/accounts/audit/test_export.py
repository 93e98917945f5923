"""Export of audit events: spreadsheet formulas and streaming."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts.audit.export import FORMULA_PREFIXES, export_events, spreadsheet_cell
from accounts.audit.record import record
from accounts.models import AuditEvent
from accounts.models.audit.digests import COLUMNS


@pytest.mark.parametrize("start", FORMULA_PREFIXES)
def test_cells_never_begin_like_a_formula(start: str) -> None:
    """OWASP, CSV injection."""
    assert spreadsheet_cell(f"{start}1+1") == f"'{start}1+1"
    assert (
        spreadsheet_cell("plain") == "plain"
        and spreadsheet_cell(-1.5) == -1.5
        and spreadsheet_cell(None) is None
    )


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_every_column_of_every_event_is_there(db: None, form: str) -> None:
    """The pieces of the stream form one file."""
    for number in range(3):
        changes = {"name": ["=SUM(A1)", number]}
        record("test.exported", actor="=cmd", object='a,b\n"c"', changes=changes)
    found = AuditEvent.objects.filter(action="test.exported").order_by("id")
    text = b"".join(export_events(found, form)).decode()
    if form == "csv":
        head, *rows = list(csv.reader(io.StringIO(text)))
        assert tuple(head) == COLUMNS and len(rows) == 3
        assert rows[0][COLUMNS.index("actor")] == "'=cmd"
    else:
        lines = [json.loads(line) for line in text.splitlines()]
        assert [tuple(line) for line in lines] == [COLUMNS] * 3
        assert lines[2]["changes"] == {"name": ["=SUM(A1)", 2]}
        assert lines[0]["actor"] == "=cmd"


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_the_command_writes_the_named_days(
    db: None, capfdbinary: Any, form: str
) -> None:
    """The command writes the named days to standard output and records the export."""
    record("test.exported", object="of today")
    now = timezone.now()
    for since, until, there in (
        ("", "", True),
        (f"{now:%Y-%m-%d}", "", True),
        ("2020-01-01", "2020-01-02", False),
    ):
        call_command("export_audit", form=form, since=since, until=until)
        assert (b"of today" in capfdbinary.readouterr().out) == there
    event = AuditEvent.objects.filter(action="audit.exported").first()
    assert event is not None and "2020-01-01 to 2020-01-02" in str(event.changes)


@pytest.mark.parametrize("text", ["tomorrow", "2026-13-40"])
def test_the_command_names_an_invalid_date(db: None, text: str) -> None:
    with pytest.raises(CommandError, match=text):
        call_command("export_audit", since=text)
