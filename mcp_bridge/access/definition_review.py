"""What an administrator compares before a definition is accepted."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

Json = Mapping[str, Any]

MAX_LINES = 400
"""Differences shown of one definition."""


@dataclass(frozen=True, slots=True)
class Line:
    """One difference: the place as a path, and the values as text.

    An empty text means that the value is not there.
    """

    path: str
    before: str
    after: str


class NotThere:
    """In place of a value that only the other definition has."""


NOT_THERE = NotThere()


def json_differences(before: Any, after: Any, path: str = "") -> Iterator[Line]:
    """The values that differ between two JSON values, each with its path."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            inner = f"{path}.{key}" if path else str(key)
            old, new = before.get(key, NOT_THERE), after.get(key, NOT_THERE)
            yield from json_differences(old, new, inner)
    elif not same_json(before, after):
        yield Line(path, as_text(before), as_text(after))


def same_json(before: Any, after: Any) -> bool:
    """Whether two JSON values are equal; in Python, true equals 1."""
    if type(before) is not type(after):
        return False
    return json.dumps(before, sort_keys=True) == json.dumps(after, sort_keys=True)


def difference_lines(before: Json | None, after: Json | None) -> list[Line]:
    """The first MAX_LINES differences."""
    lines = []
    for line in json_differences(before or {}, after or {}):
        lines.append(line)
        if len(lines) == MAX_LINES:
            break
    return lines


def as_text(value: Any) -> str:
    """A value for people: text with visible hidden characters, others as JSON."""
    if value is NOT_THERE:
        return ""
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, indent=1)
    return with_visible_characters(value)


HIDDEN = ("Cf", "Cc", "Co", "Cs", "Cn")
"""Unicode categories of characters that a reader does not see."""
JOINERS = "\u200d\ufe0e\ufe0f"
"""Parts of emoji; too common to warn about, but shown if they stand alone."""


def is_hidden(character: str) -> bool:
    """Whether a reader does not see the character, although a model reads it."""
    if character in "\n\t":
        return False
    code = ord(character)
    tagged = 0xE0000 <= code <= 0xE0FFF or 0xFE00 <= code <= 0xFE0F
    return tagged or unicodedata.category(character) in HIDDEN


def with_visible_characters(text: str) -> str:
    """The text with `[U+200B]` in place of each hidden character."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"[U+{ord(c):04X}]" if is_hidden(c) else c for c in text)


INSTRUCTIONS = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b"
    r"(?:instruction|prompt|rule|previous|above|polic)"
    r"|<\s*/?\s*(?:important|system|secret|instructions?|admin)\b"
    r"|\b(?:do not|don't|never)\b.{0,30}\b(?:tell|mention|inform|reveal|show)\b.{0,20}"
    r"\b(?:user|human|anyone|person|this)\b"
    r"|\b(?:before|instead of|after)\b.{0,40}\b(?:using|calling|any other) "
    r"(?:this |any )?(?:other )?tools?\b"
    r"|\byou (?:must|should) (?:always|first|never)\b|\bsystem prompt\b",
    re.IGNORECASE | re.DOTALL,
)
SECRETS = re.compile(
    r"\b(?:pass(?:word|phrase|wd)|api[ _-]?keys?|private[ _-]?keys?|access[ _-]?tokens?"
    r"|secret[ _-]?(?:key|token)s?|credentials?|id_rsa|ssh[ _-]keys?|seed phrase"
    r"|credit card|conversation history|chat history)\b"
    r"|\.(?:env|ssh|aws|netrc|npmrc)\b|/etc/passwd|mcp\.json",
    re.IGNORECASE,
)


def texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, names of members included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def suspicions(definition: Json | None) -> list[str]:
    """Why a person should read the definition with care; empty if nothing stands out.

    A mark, not a decision: harmless text can match, and harmful text may not.
    """
    found = list(texts(definition or {}))
    text = "\n".join(found)
    marks = []
    hidden = {f"U+{ord(c):04X}" for c in text if c not in JOINERS and is_hidden(c)}
    if hidden:
        shown = ", ".join(sorted(hidden)[:5])
        marks.append(_("Hidden characters (%s).") % shown)
    if match := INSTRUCTIONS.search(text):
        marks.append(_("Instructions to the model: “%s”.") % excerpt(match))
    if match := SECRETS.search(text):
        marks.append(_("Mentions secrets: “%s”.") % excerpt(match))
    return marks


def excerpt(match: re.Match[str]) -> str:
    """The words that match, on one short line."""
    return with_visible_characters(" ".join(match.group().split()))[:80]
