"""Errors and docs/troubleshooting.md name each other."""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from django.utils import translation
from mcp.server.mcpserver.tools import tool_manager

from accounts.http.help.links import (
    GUIDES,
    SECTIONS,
    VALUE,
    guide_url,
    help_url,
    slug,
    text_pattern,
)
from tests.support.server import ROOT

pytestmark = pytest.mark.once
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
FENCE = re.compile(r"^## ([^\n]+)\n\n```text\n(.*?)```", re.MULTILINE | re.DOTALL)
TEXTS = [text for texts in SECTIONS.values() for text in texts]
MSGID = re.compile(r'^msgid ((?:"(?:[^"\\]|\\.)*"\n)+)', re.MULTILINE)


def template(node: ast.AST) -> str:
    """A string of the code; the values of an f-string are %s."""
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) for part in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else "%s"


@cache
def strings() -> set[str]:
    """The strings of the code and of the catalogue, links.py aside."""
    folders = ("accounts", "mcp_bridge", "config")
    files = [path for name in folders for path in (ROOT / name).rglob("*.py")]
    files = [path for path in files if path.name != "links.py"]
    sources = [path.read_text("utf-8") for path in files]
    sources.append(inspect.getsource(tool_manager))
    kinds = (ast.Constant, ast.JoinedStr)
    found = set()
    for source in sources:
        nodes = ast.walk(ast.parse(source))
        found |= {template(node) for node in nodes if isinstance(node, kinds)}
    return found | catalogue()


def catalogue() -> set[str]:
    """The msgids, which templates have too."""
    path = Path("accounts/locale/ko/LC_MESSAGES/django.po")
    blocks = MSGID.findall((ROOT / path).read_text("utf-8"))
    return {"".join(map(ast.literal_eval, b.splitlines())) for b in blocks}


def test_the_page_has_a_section_for_each_text() -> None:
    """Values are `…` there."""
    sections = {title: tuple(body.splitlines()) for title, body in FENCE.findall(PAGE)}
    known = {
        title: tuple(VALUE.sub("…", text) for text in texts)
        for title, texts in SECTIONS.items()
    }
    assert sections == known and len(SECTIONS) >= 20
    assert list(sections) == re.findall(r"^## (.+)$", PAGE, re.MULTILINE)


def test_each_section_has_cause_and_fix() -> None:
    for body in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        title, causes = body.partition("\n")[0], body.count("\n**Cause.** ")
        assert (causes, body.count("\n**Fix.** ")) == (1, 1), title


@pytest.mark.parametrize("text", TEXTS)
def test_each_text_is_in_the_code(text: str) -> None:
    known = any(text == found or found.startswith(f"{text}\n") for found in strings())
    assert known, text


@pytest.mark.parametrize("text", TEXTS)
def test_each_error_links_to_its_section(settings: Any, text: str) -> None:
    settings.ISSUER_URL = "https://p.example"
    shown = re.sub(r"%(\(\w+\))?[sd]", "a.b (c)", text)
    title = next(title for title, texts in SECTIONS.items() if text in texts)
    assert help_url(shown) == f"https://p.example/help/#{slug(title)}"
    with translation.override("ko"):
        korean = re.sub(r"%(\(\w+\))?[sd]", "a.b", translation.gettext(text))
        assert help_url(korean) == help_url(shown)


@pytest.mark.parametrize("text", ["", "Something else.", "xUnknown tool: a"])
def test_other_errors_have_no_section(text: str) -> None:
    assert help_url(text) == ""


def test_anchors_are_those_of_markdown_viewers() -> None:
    assert slug("A client's URI: 2 words") == "a-clients-uri-2-words"
    assert len({slug(title) for title in SECTIONS}) == len(SECTIONS)
    assert text_pattern("a %s (%(x)d)") == r"a\ .*\ \(.*\)"


def test_a_guide_has_an_address_if_it_is_installed(
    settings: Any, tmp_path: Path
) -> None:
    assert guide_url("connecting") == "/help/connecting/"
    assert guide_url("troubleshooting") == "/help/"
    place = "administration#Why was Ana refused? Who can call this?"
    anchor = "why-was-ana-refused-who-can-call-this"
    assert guide_url(place) == f"/help/administration/#{anchor}"
    assert all(guide_url(name) for name in GUIDES)
    settings.BASE_DIR = tmp_path
    assert guide_url("connecting") == ""
