"""Export of audit events: spreadsheet formulas and streaming."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts.audit import export
from accounts.audit.export import (
    CONTENT_TYPES,
    FORMATS,
    FORMULA_PREFIXES,
    batches,
    event_by_column,
    export_events,
    spreadsheet_cell,
)
from accounts.audit.record import record
from accounts.models import AuditEvent
from accounts.models.audit.columns import COLUMNS, OPEN_COLUMNS


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
    text = b"".join(islice(export_events(found, form), 20)).decode()
    if form == "csv":
        head, *rows = list(csv.reader(io.StringIO(text)))
        assert tuple(head) == OPEN_COLUMNS and len(rows) == 3
        assert rows[0][COLUMNS.index("actor")] == "'=cmd"
    else:
        lines = [json.loads(line) for line in text.splitlines()]
        assert [tuple(line) for line in lines] == [OPEN_COLUMNS] * 3
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


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_the_command_writes_arguments_only_if_asked(
    db: None, capfdbinary: Any, form: str
) -> None:
    record("test.exported", arguments='{"policy":"full","arguments":{"n":12345}}')
    call_command("export_audit", form=form)
    assert b"12345" not in capfdbinary.readouterr().out
    call_command("export_audit", form=form, arguments=True)
    assert b"12345" in capfdbinary.readouterr().out
    event = AuditEvent.objects.filter(action="audit.exported").first()
    assert event is not None and event.via == "--arguments"


@pytest.mark.parametrize("text", ["tomorrow", "2026-13-40"])
def test_the_command_names_an_invalid_date(db: None, text: str) -> None:
    with pytest.raises(CommandError, match=text):
        call_command("export_audit", since=text)


def exported(queryset: Any) -> list[str]:
    """The objects in the first pieces: a batch that repeats would never end."""
    pieces = islice(export_events(queryset, "jsonl"), 20)
    return [json.loads(line)["object"] for p in pieces for line in p.splitlines()]


@pytest.fixture
def events(db: None) -> Any:
    """Five events, two at the same time; written in another order than they happened.

    Workers write events in batches, so an earlier one can have a larger id.
    """
    start = datetime(2026, 5, 10, tzinfo=UTC)
    minutes = {"3": 2, "0": 0, "1": 1, "4": 3, "2": 1}
    for number, after in minutes.items():
        at = start + timedelta(minutes=after)
        AuditEvent(action="test.exported", object=number, at=at).save()
    return AuditEvent.objects.filter(action="test.exported")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_batches_lose_and_repeat_nothing(
    events: Any, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Also where a batch ends between two events of one moment."""
    monkeypatch.setattr(export, "BATCH_SIZE", size)
    assert exported(events.order_by("at")) == ["0", "1", "2", "3", "4"]
    assert exported(events.order_by("-at")) == ["4", "3", "2", "1", "0"]
    assert exported(events.order_by()) == ["4", "3", "2", "1", "0"]
    found = islice(batches(events), 20)
    assert {len(batch) for batch in found} <= {size, 5 % size or size}


def test_times_are_in_utc(events: Any) -> None:
    seoul = timezone.get_fixed_timezone(9 * 60)
    moment = datetime(2026, 5, 10, 9, tzinfo=seoul)
    assert spreadsheet_cell(moment) == "2026-05-10T00:00:00+00:00"
    row = [moment if column == "at" else "" for column in COLUMNS]
    assert event_by_column(tuple(row))["at"] == "2026-05-10T00:00:00+00:00"


def test_objects_in_cells_are_sorted_json() -> None:
    assert spreadsheet_cell({"b": 1, "a": [2]}) == '{"a": [2], "b": 1}'


@pytest.mark.parametrize("start", "=+-@\t\r\n|%＝＋－＠")
def test_every_start_of_a_formula_is_known(start: str) -> None:
    assert start in FORMULA_PREFIXES and len(FORMULA_PREFIXES) == 13


def test_a_format_has_its_content_type() -> None:
    assert CONTENT_TYPES == {
        "csv": "text/csv; charset=utf-8",
        "jsonl": "application/x-ndjson",
    }
    assert FORMATS.keys() == CONTENT_TYPES.keys()


def test_an_empty_export_is_a_header_or_nothing(db: None) -> None:
    none = AuditEvent.objects.filter(action="test.never")
    assert b"".join(export_events(none, "jsonl")) == b""
    head = b"".join(export_events(none, "csv")).decode()
    assert head == ",".join(OPEN_COLUMNS) + "\r\n"
