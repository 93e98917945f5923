"""README.ko.md keeps step with README.md: what can be compared is the same."""

from __future__ import annotations

import re

import pytest

from tests.support.translations import ROOT

pytestmark = pytest.mark.once

BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)]+)\)|<(https?://[^>]+)>")
HEADING = re.compile(r"^#+", re.MULTILINE)
READMES = {"README.md", "README.ko.md"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def links(text: str) -> list[str]:
    """The links in order, except those to the other README."""
    found = [first or second for first, second in LINK.findall(text)]
    return [link for link in found if link not in READMES]


def shape(text: str) -> list[str]:
    return HEADING.findall(BLOCK.sub("", text))


def test_the_korean_readme_has_the_same_code_links_and_headings() -> None:
    """A change of one has to be made in the other."""
    english, korean = read("README.md"), read("README.ko.md")
    assert BLOCK.findall(korean) == BLOCK.findall(english)
    assert links(korean) == links(english)
    assert shape(korean) == shape(english)


def test_the_two_readmes_link_to_each_other() -> None:
    assert "](README.ko.md)" in read("README.md")
    assert "](README.md)" in read("README.ko.md")
