"""Untrusted text is bounded and stays on one line; counts have their plural."""

from __future__ import annotations

import pytest

from accounts.parsing.text import counted, one_line

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("a b", "a b"),
        ("a\nb\r\n\tc\x00d\x1b[0m", "a b   c d [0m"),
        ("a\u2028b\u202ec\x7f", "a b c "),
        ("é漢", "é漢"),
    ],
)
def test_each_unprintable_character_becomes_a_space(text: str, line: str) -> None:
    assert one_line(text) == line


def test_text_is_cut_at_the_limit() -> None:
    assert one_line("x" * 255) == "x" * 255
    assert one_line("x" * 256) == "x" * 255
    assert one_line("ab\ncd", 4) == "ab c"
    assert one_line("abc", 0) == ""


@pytest.mark.parametrize(
    ("count", "words", "text"),
    [
        (0, ["token"], "0 tokens"),
        (1, ["token"], "1 token"),
        (2, ["token"], "2 tokens"),
        (1, ["app waits", "apps wait"], "1 app waits"),
        (2, ["app waits", "apps wait"], "2 apps wait"),
    ],
)
def test_one_is_singular(count: int, words: list[str], text: str) -> None:
    assert counted(count, *words) == text
