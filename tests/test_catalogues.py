"""The translations: complete, current, and with the placeholders of the originals."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from django.utils import translation
from django.utils.translation import gettext, ngettext

from tests.support.marked_strings import marks
from tests.support.page_texts import WORDS, library_texts
from tests.support.translations import APPS, FILE, ROOT, Entry, compiled, entries

pytestmark = pytest.mark.once

PLACEHOLDER = re.compile(r"%\((\w+)\)[sdr]|%[sdr]|\{(\w*)\}")


def placeholders(text: str) -> list[str]:
    """The placeholders, sorted."""
    return sorted(found.group() for found in PLACEHOLDER.finditer(text))


def everything() -> list[Entry]:
    return [one for app in APPS for one in entries(ROOT / app / f"{FILE}.po")]


def test_every_message_is_translated_and_none_is_a_guess() -> None:
    """`make messages` marks guesses as fuzzy, and Django ignores those."""
    found = everything()
    assert len(found) > 500
    assert [one.key for one in found if not one.texts or not all(one.texts)] == []
    assert [one.key for one in found if "fuzzy" in one.flags] == []


def test_a_translation_has_the_placeholders_of_its_original() -> None:
    """Both sides have the same %s, %(name)s and {name}; a difference breaks a page."""
    wrong = [
        one.key
        for one in everything()
        for text in one.texts
        if placeholders(text) != placeholders(one.plural or one.msgid)
    ]
    assert wrong == []


def test_one_message_has_one_translation() -> None:
    """Otherwise the first app's catalogue would override the other."""
    translations: dict[tuple[str, str, str], set[str]] = {}
    for one in everything():
        translations.setdefault(one.key, set()).add(one.texts[0])
    assert [key for key, texts in translations.items() if len(texts) > 1] == []


NOUNS = "account app browser change client code counter event factor hour id identity"
NOUNS += " item key line migration minute role row seal second session token user"
COUNT = re.compile(
    rf"(?:%[ds]|%\(\w+\)[ds]|{{\w*}}) (?:\w+ )?(?:{'|'.join(NOUNS.split())})s\b"
)
"""A count before a plural, which is wrong for 1."""
NEVER_ONE = {
    "Shows the first %(shown)s of %(todo)s lines with changes.",
    "Wait {} seconds between polls.",
    "The assertion expires later than in {} seconds.",
    "it has more than {} keys.",
    "this sheet has more than %d rows",
}


def formatted_strings(app: str) -> Iterator[str]:
    """The f-strings of an app, with {} for each value."""
    for path in (ROOT / app).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (getattr(part, "value", "") for part in node.values)
                yield "".join(p if isinstance(p, str) else "{}" for p in parts)


def test_one_of_a_thing_has_no_plural() -> None:
    """Pages count with ngettext, other texts with accounts/parsing/text.py."""
    texts = {one.msgid for one in everything() if not one.plural}
    for app in (*APPS, "config"):
        texts |= set(formatted_strings(app))
    assert {text for text in texts if COUNT.search(text)} == NEVER_ONE


@pytest.mark.parametrize("app", APPS)
def test_the_compiled_catalogue_is_current(app: str) -> None:
    """A hand-edited .po file needs `make messages`."""
    known = compiled(ROOT / app / f"{FILE}.mo")
    assert "nplurals=1" in known.pop("")
    expected = {
        # As gettext joins a context, a message and its plural.
        "\x04".join(filter(None, (one.context, one.msgid)))
        + (f"\0{one.plural}" if one.plural else ""): one.texts[0]
        for one in entries(ROOT / app / f"{FILE}.po")
    }
    assert known == expected


@pytest.mark.parametrize("app", APPS)
def test_the_catalogue_has_exactly_the_marked_strings(app: str) -> None:
    """New strings need `make messages`, which also drops old ones."""
    marked = marks(app)
    known = {one.key for one in entries(ROOT / app / f"{FILE}.po")}
    assert {k: marked[k] for k in marked if k not in known} == {}
    assert known - marked.keys() == set()


def test_the_words_for_libraries_replace_texts_that_they_have() -> None:
    """A text that a library no longer has would stay here unnoticed."""
    words = entries(ROOT / WORDS)
    assert {one.msgid for one in words} - library_texts() == set()
    for one in words:
        assert placeholders(one.texts[0]) == placeholders(one.msgid)


def test_the_words_for_libraries_are_compiled() -> None:
    with translation.override("en"):
        for one in entries(ROOT / WORDS):
            counted = [ngettext(one.msgid, one.plural, n) for n in (1, 2)]
            assert one.texts == (counted if one.plural else [gettext(one.msgid)])
