"""Tables of a page, as a reader sees them: each cell under its heading."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from django.template.loader import render_to_string
from django.test import RequestFactory


@dataclass
class Table:
    """The lines of one table; a cell that spans columns counts as many."""

    heads: list[list[str]] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    @property
    def misfits(self) -> list[list[str]]:
        """Lines with more or fewer cells than the first heading has."""
        widths = {len(line) for line in self.heads[:1]}
        lines = [*self.heads[1:], *self.rows]
        return [line for line in lines if widths and len(line) not in widths]

    @property
    def named(self) -> list[dict[str, str]]:
        """Heading -> text, for each row."""
        assert not self.misfits, (self.heads, self.misfits)
        return [dict(zip(self.heads[0], row, strict=True)) for row in self.rows]


class TableReader(HTMLParser):
    """Collects the tables of a page; those inside a cell are its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[Table] = []
        self.depth, self.in_head = 0, False
        self.cell: list[str] | None = None
        self.span = 1

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.depth += tag == "table"
        if self.depth != 1:
            return
        if tag == "table":
            self.tables.append(Table())
        elif tag in ("thead", "tbody"):
            self.in_head = tag == "thead"
        elif tag == "tr":
            self.lines.append([])
        elif tag in ("td", "th"):
            self.cell, self.span = [], int(dict(attrs).get("colspan") or 1)

    @property
    def lines(self) -> list[list[str]]:
        table = self.tables[-1]
        return table.heads if self.in_head else table.rows

    def handle_data(self, data: str) -> None:
        if self.cell is not None:
            self.cell.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self.depth == 1 and self.cell is not None:
            text = " ".join(" ".join(self.cell).split())
            self.lines[-1].extend([text] * self.span)
            self.cell = None
        self.depth -= tag == "table"


def tables_on(text: str) -> list[Table]:
    reader = TableReader()
    reader.feed(text)
    return reader.tables


def rows_on(text: str, *headings: str) -> list[dict[str, str]]:
    """The rows of the only table with these headings."""
    (table,) = [one for one in tables_on(text) if [*headings] in one.heads[:1]]
    return table.named


def words_on(text: str) -> str:
    """The page without its tags, as one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", text)).split())


def admin_page(template: str, **context: Any) -> str:
    """A page of the admin with this context alone."""
    request = RequestFactory().get("/admin/")
    return render_to_string(template, {"request": request, **context})
