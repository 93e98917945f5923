"""A page of figures: each table has a section of its own, written when it is run."""

from __future__ import annotations

import re
from pathlib import Path

from bench.processes import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"


def put(name: str, title: str, text: str, where: Path = PAGE) -> None:
    """Write a section, in place of the one of the same name; the head is kept."""
    page = where.read_text()
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    section = f"{begin}\n## {title}\n\n{text.strip()}\n{end}"
    there = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if there.search(page):
        page = there.sub(lambda _: section, page)
    else:
        page = f"{page.rstrip()}\n\n{section}\n"
    where.write_text(page)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
