"""Every template: forms that post have a token, and no value escapes the escaping."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.conf import settings

APPS = ("accounts", "mcp_bridge")
ROOTS = [Path(settings.BASE_DIR) / app / "templates" for app in APPS]
FILES = sorted(path for root in ROOTS for path in root.rglob("*.html"))
every_template = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
POSTING = re.compile(r'<form\b[^>]*\bmethod="post".*?</form>', re.DOTALL)
UNESCAPED = re.compile(r"\|\s*(safe|safeseq)\b|{%\s*autoescape\s+off")


def test_there_are_templates() -> None:
    assert len(FILES) > 70
    texts = "".join(path.read_text() for path in FILES)
    assert len(POSTING.findall(texts)) >= 40


@every_template
def test_each_form_that_posts_has_a_token(path: Path) -> None:
    for form in POSTING.findall(path.read_text()):
        assert "{% csrf_token %}" in form


TEXTS_OF_THE_CODE = {"fieldset.html": 2}
"""Template -> unescaped values: descriptions and help texts, which nobody enters."""


@every_template
def test_no_template_shows_unescaped_values(path: Path) -> None:
    found = UNESCAPED.findall(path.read_text())
    assert len(found) == TEXTS_OF_THE_CODE.get(path.name, 0)
