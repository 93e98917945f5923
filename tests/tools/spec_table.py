"""docs/security.md's table: every requirement a test is marked with, and its tests.

`python -m tests.tools.spec_table` writes the table; with --check it only compares.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "security.md"
BEGIN, END = "<!-- tests: begin -->", "<!-- tests: end -->"
MARK = re.compile(r'^@pytest\.mark\.spec\("([^"]+)"\)', re.MULTILINE)
MARKED = re.compile(
    r"((?:^@pytest\.mark\.[^\n]*\n(?:^[ \])][^\n]*\n)*)+)^def (test_\w+)", re.MULTILINE
)


def found() -> dict[str, list[str]]:
    """Requirement -> tests, from the marks in the sources."""
    tests: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for marks, name in MARKED.findall(path.read_text()):
            for reference in MARK.findall(marks):
                where = f"`{path.relative_to(ROOT)}`"
                tests.setdefault(reference, []).append(f"{where} `{name}`")
    return dict(sorted(tests.items()))


def table() -> str:
    """The table between the two comments."""
    rows = [f"| {ref} | {'<br>'.join(tests)} |" for ref, tests in found().items()]
    return "\n".join([BEGIN, "| what is asked | tests |", "| --- | --- |", *rows, END])


def main(arguments: list[str]) -> int:
    """Write the table, or report that it is outdated."""
    page = PAGE.read_text()
    start, end = page.index(BEGIN), page.index(END) + len(END)
    expected = page[:start] + table() + page[end:]
    if "--check" in arguments:
        if page != expected:
            print("docs/security.md is stale: run python -m tests.tools.spec_table")
        return int(page != expected)
    PAGE.write_text(expected)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
