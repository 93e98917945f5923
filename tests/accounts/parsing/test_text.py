"""Untrusted text is bounded and stays on one line; counts have their plural."""

from __future__ import annotations

import pytest

from accounts.parsing.text import (
    BROWSERS,
    SYSTEMS,
    browser_in_words,
    counted,
    one_line,
)

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


WEBKIT = "(KHTML, like Gecko)"


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        (f"Mozilla/5.0 (Windows NT 10.0) {WEBKIT} Chrome/1 Edg/1", "Edge on Windows"),
        (f"Mozilla/5.0 (Linux; Android 15) {WEBKIT} Chrome/1", "Chrome on Android"),
        (f"Mozilla/5.0 (iPhone; Mac OS X) {WEBKIT} CriOS/1", "Chrome on iPhone"),
        ("Mozilla/5.0 (Macintosh; Mac OS X) Version/18 Safari/6", "Safari on macOS"),
        ("Mozilla/5.0 (X11; Linux) Gecko Firefox/1", "Firefox on Linux"),
        ("curl/8.5.0", "curl/8.5.0"),
        ("x\n" * 50, "x " * 40),
        ("", "unknown browser"),
    ],
)
def test_a_user_agent_becomes_a_browser_and_a_system(agent: str, words: str) -> None:
    assert browser_in_words(agent) == words


@pytest.mark.parametrize("part", [*BROWSERS, *SYSTEMS])
def test_a_browser_or_a_system_alone_is_shown_as_it_was_sent(part: str) -> None:
    """A half of the name, such as " on Linux", says less than the header."""
    assert browser_in_words(f"{part}1 tool") == f"{part}1 tool"
