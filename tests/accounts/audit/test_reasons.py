"""Reasons in words: those of every decision, with the code as a tooltip."""

from __future__ import annotations

import pytest

from accounts.audit.reasons import REASONS, reason_cell, reason_in_words
from mcp_bridge.access.decision import Reason

pytestmark = pytest.mark.once


def test_every_reason_of_a_decision_has_words() -> None:
    assert set(Reason) - set(REASONS) == set()


def test_each_reason_has_its_own_words() -> None:
    words = [str(text) for text in REASONS.values()]
    assert len(set(words)) == len(words)


def test_a_code_is_shown_in_words_and_other_text_unchanged() -> None:
    assert reason_in_words("role_lacks_scope") == "role lacks access"
    cell = '<span title="role_lacks_scope">role lacks access</span>'
    assert reason_cell("role_lacks_scope") == cell
    assert reason_cell("demo") == reason_in_words("demo") == "demo"
    assert reason_cell("") == "-"
