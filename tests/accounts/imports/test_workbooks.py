"""Excel workbooks: what cells mean, which sheet is read, and hostile files."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from datetime import date
from typing import Any

import openpyxl
import pytest

from accounts.imports import workbooks
from accounts.imports.workbooks import (
    cell_text,
    column_letters,
    without_empty_end,
    workbook_text,
)

HEADER = ["Username", "E-Mail", "First name", "Active", "Roles"]
SHEET = (
    '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    "<sheetData>{}</sheetData></worksheet>"
)
CELL = '<row r="{}"><c r="{}" t="inlineStr"><is><t>x</t></is></c></row>'


def workbook(*rows: Sequence[Any]) -> bytes:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    return saved(book)


def saved(book: Any) -> bytes:
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def with_sheet(content: str | bytes) -> bytes:
    """A workbook whose sheet has this content."""
    before, file = zipfile.ZipFile(io.BytesIO(workbook(HEADER))), io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as after:
        for name in before.namelist():
            is_sheet = name == "xl/worksheets/sheet1.xml"
            after.writestr(name, content if is_sheet else before.read(name))
    return file.getvalue()


def problems_of(raw: bytes) -> list[str]:
    text, problems = workbook_text(raw)
    assert text == "" and problems
    return [str(problem) for problem in problems]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5.0, "5"),
        (-123456789.0, "-123456789"),
        (999999999999999.0, "999999999999999"),
        (0.5, "0.5"),
        (None, ""),
        (True, "yes"),
        (False, "no"),
    ],
)
def test_a_number_is_written_as_excel_shows_it(value: Any, text: str) -> None:
    assert cell_text(value) == text


def test_cells_are_text() -> None:
    rows: list[list[Any]] = [
        HEADER,
        ["bob", "b@example.com", "Bob", True, "User; Guest@2099-01-01"],
        [1234, None, 5.0, False, None],
        [],
        ["zoe", None, "two\nlines, one cell"],
    ]
    text, problems = workbook_text(workbook(*rows))
    assert not problems
    assert text.splitlines() == [
        "Username,E-Mail,First name,Active,Roles",
        "bob,b@example.com,Bob,yes,User; Guest@2099-01-01",
        "1234,,5,no,",
        "",
        'zoe,,"two lines, one cell",,',
    ]


def test_what_cannot_be_read_is_named_by_row_and_column() -> None:
    rows: list[list[Any]] = [
        HEADER,
        ["=A1", None, date(2026, 1, 2), "#N/A"],
        [None] * 6 + [date.min],
    ]
    first, second, third, last = problems_of(workbook(*rows))
    assert first.startswith("line 2, Username: this formula has no stored result")
    assert second.startswith("line 2, First name: Excel made a date")
    assert third.startswith("line 2, Active: this cell has the error #N/A")
    assert last.startswith("line 3, G: ")


def test_a_formula_is_its_stored_result() -> None:
    cells = (
        '<row r="1"><c r="A1" t="str"><f>"user"&amp;"name"</f><v>username</v></c></row>'
        '<row r="2"><c r="A2"><f>1+1</f><v>2</v></c></row>'
    )
    assert workbook_text(with_sheet(SHEET.format(cells))) == ("username\n2\n", [])


def test_a_formula_of_a_later_sheet_is_found() -> None:
    """The first sheet is hidden; the second one is read."""
    book = openpyxl.Workbook()
    book.active.sheet_state = "hidden"
    book.create_sheet("People").append(["username"])
    book.worksheets[1].append(["=1+1"])
    (text,) = problems_of(saved(book))
    assert text.startswith("line 2, username: this formula has no stored result")


def test_hidden_sheets_are_not_read() -> None:
    book = openpyxl.Workbook()
    book.active.append(["secret"])
    book.active.sheet_state = "hidden"
    book.create_sheet("People").append(["username"])
    assert workbook_text(saved(book)) == ("username\n", [])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (SHEET.format(CELL.format(99_999_999_999, "A99999999999")), "more than"),
        ("<a>", "cannot be read"),
        (
            '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
            + SHEET.format(CELL.format(1, "A1").replace("x", "&e;")),
            "cannot be read",
        ),
    ],
    ids=["far-row", "no-xml", "entity"],
)
def test_hostile_sheets_are_refused(
    monkeypatch: pytest.MonkeyPatch, content: Any, text: str
) -> None:
    monkeypatch.setattr(workbooks, "MOST_ROWS", 100)
    assert text in problems_of(with_sheet(content))[0]


@pytest.mark.parametrize("raw", [b"PK\x03\x04abc", workbook(HEADER)[:2000]])
def test_broken_files_are_refused(raw: bytes) -> None:
    assert "cannot be read" in problems_of(raw)[0]


@pytest.mark.parametrize("limit", ["MOST_BYTES", "MOST_PARTS", "MOST_ROWS"])
def test_a_workbook_is_bounded(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    """By bytes after decompression, by parts of the archive, and by rows."""
    raw = workbook(HEADER, ["bob"])
    parts = zipfile.ZipFile(io.BytesIO(raw)).infolist()
    sizes = {
        "MOST_BYTES": sum(part.file_size for part in parts),
        "MOST_PARTS": len(parts),
        "MOST_ROWS": 2,
    }
    monkeypatch.setattr(workbooks, limit, sizes[limit])
    assert workbook_text(raw)[1] == []
    monkeypatch.setattr(workbooks, limit, sizes[limit] - 1)
    assert problems_of(raw)


def test_cells_far_to_the_right_are_left_out() -> None:
    text, problems = workbook_text(with_sheet(SHEET.format(CELL.format(1, "XFD1"))))
    assert (text, problems) == ("\n", [])


def test_problems_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbooks, "MOST_PROBLEMS", 3)
    rows = [[date(2026, 1, 2)]] * 10
    assert len(problems_of(workbook(*rows))) == 3


def test_the_bounds_of_a_workbook() -> None:
    assert workbooks.MOST_BYTES == 64 * 1024 * 1024
    assert (workbooks.MOST_PARTS, workbooks.MOST_ROWS) == (1000, 100_000)
    assert (workbooks.MOST_COLUMNS, workbooks.MOST_PROBLEMS) == (40, 200)


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ((), []),
        ((None, ""), []),
        (("a", None, "", None), ["a"]),
        (("", None, "a", ""), ["", None, "a"]),
        ((None, 0), [None, 0]),
        (("a", False), ["a", False]),
    ],
    ids=str,
)
def test_only_empty_cells_at_the_end_are_left_out(values: Any, kept: Any) -> None:
    """Zero and no are values; a formula's empty text is none."""
    assert without_empty_end(values) == kept


def test_columns_have_their_letters() -> None:
    assert [column_letters(n) for n in (0, 25, 26, 701)] == ["A", "Z", "AA", "ZZ"]


def test_a_wrong_size_of_a_sheet_hides_no_row() -> None:
    """Some programs write the size of the first save."""
    whole = zipfile.ZipFile(io.BytesIO(workbook(HEADER, ["a"], ["b"])))
    sheet = whole.read("xl/worksheets/sheet1.xml")
    assert b'<dimension ref="A1:E3"' in sheet
    raw = with_sheet(sheet.replace(b'ref="A1:E3"', b'ref="A1:A2"'))
    text, problems = workbook_text(raw)
    assert problems == [] and text.splitlines()[1:] == ["a,,,,", "b,,,,"]
    assert text.startswith("Username,E-Mail,")
