"""Excel workbooks (.xlsx) as CSV text: the first visible sheet, within bounds."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from datetime import date, time, timedelta
from typing import Any

from django.utils.translation import gettext as _

from accounts.imports.problems import ImportProblem

MOST_BYTES = 64 * 1024 * 1024
"""Of all parts after decompression; a small file may contain gigabytes of zeros."""
MOST_PARTS = 1000
MOST_ROWS = 100_000
MOST_COLUMNS = 40
MOST_PROBLEMS = 200


ERRORS = ("#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A")
UNKNOWN = object()


class Unreadable(Exception):
    """A cell or a workbook cannot be read; the text says why, and what to do."""


def workbook_text(raw: bytes) -> tuple[str, list[ImportProblem]]:
    """The first visible sheet as CSV, a line for each row; problems if there are any.

    Line numbers are row numbers.
    """
    try:
        check_unpacked_size(raw)
        return sheet_text(raw)
    except Unreadable as error:
        return "", [ImportProblem(0, "", str(error))]
    except Exception:  # openpyxl raises whatever its parsers do.
        text = _("this workbook cannot be read; open it in Excel and save it again")
        return "", [ImportProblem(0, "", text)]


def check_unpacked_size(raw: bytes) -> None:
    """Raises Unreadable for archives that are larger than their file suggests.

    zipfile reads no more of a part than its declared size.
    """
    parts = zipfile.ZipFile(io.BytesIO(raw)).infolist()
    size = sum(part.file_size for part in parts)
    if size > MOST_BYTES or len(parts) > MOST_PARTS:
        text = _("this workbook is too large; save the sheet as CSV UTF-8")
        raise Unreadable(text)


def sheet_text(raw: bytes) -> tuple[str, list[ImportProblem]]:
    """Raises Unreadable, and what openpyxl raises."""
    problems: list[ImportProblem] = []
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    header: list[str] = []
    for number, row in enumerate(workbook_rows(raw), start=1):
        if number > MOST_ROWS:
            raise Unreadable(_("this sheet has more than %d rows") % MOST_ROWS)
        cells = []
        for column, value in enumerate(row):
            try:
                cells.append(cell_text(value))
            except Unreadable as error:
                named = header[column] if column < len(header) else ""
                field = named or column_letters(column)
                problems.append(ImportProblem(number, field, str(error)))
        header = header or cells
        write(cells + [""] * (len(header) - len(cells)) if cells else ())
        if len(problems) >= MOST_PROBLEMS:
            break
    return ("", problems) if problems else (text.getvalue(), [])


def workbook_rows(raw: bytes) -> Iterator[list[Any]]:
    """The values of each row, without empty cells at its end.

    A formula without a stored result is UNKNOWN.
    """
    values = sheet_rows(raw, stored=True)
    if not has_formulas(raw):
        yield from map(without_empty_end, values)
        return
    for row, formulas in zip(values, sheet_rows(raw, stored=False), strict=True):
        pairs = zip(row, formulas, strict=True)
        found = [UNKNOWN if v is None and is_formula(f) else v for v, f in pairs]
        yield without_empty_end(found)


def sheet_rows(raw: bytes, *, stored: bool) -> Iterator[tuple[Any, ...]]:
    """Rows of the first visible sheet: stored results of formulas, or the formulas."""
    import openpyxl  # Only imports need it, and it loads for a third of a second.

    book = openpyxl.load_workbook(
        io.BytesIO(raw), read_only=True, data_only=stored, keep_links=False
    )
    visible = [one for one in book.worksheets if one.sheet_state == "visible"]
    if not visible:
        raise Unreadable(_("this workbook has no visible sheet"))
    visible[0].reset_dimensions()
    rows: Iterator[tuple[Any, ...]] = visible[0].iter_rows(
        max_col=MOST_COLUMNS, values_only=True
    )
    return rows


def has_formulas(raw: bytes) -> bool:
    book = zipfile.ZipFile(io.BytesIO(raw))
    names = [name for name in book.namelist() if "/worksheets/" in name]
    return any(b"<f" in book.read(name) for name in names)


def is_formula(value: Any) -> bool:
    """Whether openpyxl reads a formula; array formulas are objects."""
    return value is not None and (not isinstance(value, str) or value.startswith("="))


def cell_text(value: Any) -> str:
    """What Excel shows in a cell, as text. Raises Unreadable."""
    if isinstance(value, str):
        if value in ERRORS:
            raise Unreadable(_("this cell has the error %s") % value)
        return re.sub(r"\s*[\r\n]+\s*", " ", value)
    if value is UNKNOWN:
        text = _("this formula has no stored result; open the file in Excel, save it")
        raise Unreadable(text)
    if isinstance(value, date | time | timedelta):
        text = _("Excel made a date of this cell; format the column as text")
        raise Unreadable(text)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return "" if value is None else str(value)


def column_letters(index: int) -> str:
    """The letters of a column, as Excel shows them; 0 is A."""
    letters = ""
    while index >= 0:
        letters = chr(ord("A") + index % 26) + letters
        index = index // 26 - 1
    return letters


def without_empty_end(values: Sequence[Any]) -> list[Any]:
    length = len(values)
    while length and (values[length - 1] is None or values[length - 1] == ""):
        length -= 1
    return list(values[:length])
