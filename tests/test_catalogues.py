"""The translations: whole, current, and with the same placeholders on both sides."""

from __future__ import annotations

import re

import pytest

from tests.support.marked_strings import marks
from tests.support.translations import APPS, FILE, ROOT, Entry, compiled, entries

pytestmark = pytest.mark.once

PLACEHOLDER = re.compile(r"%\((\w+)\)[sdr]|%[sdr]|\{(\w*)\}")


def placeholders(text: str) -> list[str]:
    """What is filled in, whatever the order."""
    return sorted(found.group() for found in PLACEHOLDER.finditer(text))


def everything() -> list[Entry]:
    return [one for app in APPS for one in entries(ROOT / app / f"{FILE}.po")]


def test_every_message_is_translated_and_none_is_a_guess() -> None:
    """`make messages` marks guesses as fuzzy, and Django leaves them out."""
    found = everything()
    assert len(found) > 500
    assert [one.key for one in found if not one.texts or not all(one.texts)] == []
    assert [one.key for one in found if "fuzzy" in one.flags] == []


def test_a_translation_is_filled_in_like_its_original() -> None:
    """%s, %(name)s and {name} on both sides; one more or less breaks a page."""
    wrong = [
        one.key
        for one in everything()
        for text in one.texts
        if placeholders(text) != placeholders(one.plural or one.msgid)
    ]
    assert wrong == []


def test_one_word_has_one_translation() -> None:
    """The first app's catalogue would win, whatever the other one says."""
    told: dict[tuple[str, str, str], set[str]] = {}
    for one in everything():
        told.setdefault(one.key, set()).add(one.texts[0])
    assert [key for key, texts in told.items() if len(texts) > 1] == []


@pytest.mark.parametrize("app", APPS)
def test_the_compiled_catalogue_says_the_same(app: str) -> None:
    """A .po changed by hand needs `make messages` before it counts."""
    known = compiled(ROOT / app / f"{FILE}.mo")
    assert "nplurals=1" in known.pop("")
    wanted = {
        "\0".join(filter(None, (one.msgid, one.plural))): one.texts[0]
        for one in entries(ROOT / app / f"{FILE}.po")
    }
    assert {key.rpartition("\x04")[2]: text for key, text in known.items()} == wanted


@pytest.mark.parametrize("app", APPS)
def test_every_marked_word_is_in_the_catalogue_and_nothing_else(app: str) -> None:
    """New words need `make messages` and a translation; it drops old ones."""
    marked = marks(app)
    known = {one.key for one in entries(ROOT / app / f"{FILE}.po")}
    assert {k: marked[k] for k in marked if k not in known} == {}
    assert known - marked.keys() == set()
