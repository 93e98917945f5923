"""Row ids that both databases can compare."""

from __future__ import annotations

import pytest

from accounts.parsing.row_ids import LARGEST, row_id

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1", 1),
        ("007", 7),
        (5, 5),
        (str(2**63 - 1), 2**63 - 1),
        (str(2**63), 0),
        ("0" * 18 + "1", 1),
        ("0" * 19 + "1", 0),
        ("9" * 19, 0),
        ("9" * 5000, 0),
        ("", 0),
        (" 1", 0),
        ("1\n", 0),
        ("-1", 0),
        ("+1", 0),
        ("1.0", 0),
        ("1_0", 0),
        ("²", 0),
        ("٣", 0),
        ("x", 0),
        (None, 0),
        (True, 0),
    ],
)
def test_other_text_names_no_row(text: object, expected: int) -> None:
    assert row_id(text) == expected
    assert LARGEST == 9_223_372_036_854_775_807
