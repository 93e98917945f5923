"""The tables of attacks and defects in docs/security.md name existing tests."""

from __future__ import annotations

import re

import pytest

from tests.support.translations import ROOT

pytestmark = pytest.mark.once


@pytest.mark.parametrize("name", ["kinds", "defects"])
def test_every_row_names_tests_that_exist(name: str) -> None:
    """Each row names a file or folder, and each named function is a test."""
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = rf"<!-- {name}: begin -->(.*)<!-- {name}: end -->"
    table = re.search(rows, page, re.DOTALL)
    assert table is not None
    lines = [line for line in table[1].splitlines() if line.startswith("| ")]
    sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    for line in lines[2:]:
        files = re.findall(r"`(tests/[\w/.]+)`", line)
        assert files, line
        for file in files:
            assert (ROOT / file).exists(), file
        for test in re.findall(r"`(test_\w+)`", line):
            assert any(f"def {test}(" in source for source in sources), test
