"""Writes one section of a page of figures and keeps all others."""

from __future__ import annotations

import re
from pathlib import Path

from bench.processes import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"


def write_section(name: str, text: str, title: str = "", page: Path = PAGE) -> None:
    """Replace the section between the marks of `name`, or append it."""
    old = page.read_text()
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    heading = f"## {title}\n\n" if title else ""
    section = f"{begin}\n{heading}{text.strip()}\n{end}"
    present = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if present.search(old):
        new = present.sub(lambda _: section, old)
    else:
        new = f"{old.rstrip()}\n\n{section}\n"
    page.write_text(new)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
