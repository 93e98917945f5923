"""The rows of the change log, as the admin and a shell show them."""

from __future__ import annotations

import pytest

from mcp_bridge.models import ChangeCounter, LoggedChange

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (LoggedChange(number=7, kind="user", key="3"), "7 user 3"),
        (LoggedChange(number=7, kind="all", key=""), "7 all"),
        (ChangeCounter(epoch="e", number=9), "9 of e"),
        (ChangeCounter(), "0 of no epoch"),
    ],
)
def test_a_row_names_its_number(row: object, text: str) -> None:
    assert str(row) == text
