"""The table of attack kinds in docs/security.md names only existing tests."""

from __future__ import annotations

import re

import pytest

from tests.support.translations import ROOT

pytestmark = pytest.mark.once

ROWS = re.compile(r"<!-- kinds: begin -->(.*)<!-- kinds: end -->", re.DOTALL)


def test_every_kind_of_attack_names_tests_that_exist() -> None:
    """Each row names a file or folder, and each named function is a test."""
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    table = ROWS.search(page)
    assert table is not None
    lines = [line for line in table[1].splitlines() if line.startswith("| ")]
    sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    for line in lines[2:]:
        files = re.findall(r"`(tests/[\w/.]+)`", line)
        assert files, line
        for name in files:
            assert (ROOT / name).exists(), name
        for name in re.findall(r"`(test_\w+)`", line):
            assert any(f"def {name}(" in source for source in sources), name
