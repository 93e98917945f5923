"""The page /help/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from accounts.http.help.links import GUIDES, SECTIONS, guide_url, slug
from config.views import help as help_view
from tests.support.static_files import UNCOLLECTED

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def read_again(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED
    help_view.page.cache_clear()
    help_view.title_of.cache_clear()


@pytest.mark.django_db
def test_the_page_has_an_anchor_for_each_section() -> None:
    response = Client().get("/help/")
    html = response.content.decode()
    assert response.status_code == 200
    for title in SECTIONS:
        assert f'<h2 id="{slug(title)}">{title}</h2>' in html
    assert "<strong>Cause.</strong>" in html and "<code>Retry-After</code>" in html
    assert "<em>OAuth clients</em>" in html and "```" not in html and "%s" not in html


@pytest.mark.django_db
@pytest.mark.parametrize("name", GUIDES)
def test_every_guide_is_served(name: str) -> None:
    """Each with the list of all; links stay within what is served."""
    html = Client().get(guide_url(name)).content.decode()
    assert html.count("<h1") == 1 and 'aria-current="page"' in html
    for target in re.findall(r'href="([^"]+)"', html):
        assert ".md" not in target
    for path in set(re.findall(r'href="(/help/[^"#]*)', html)):
        assert Client().get(path).status_code == 200, path


def test_text_is_escaped() -> None:
    html = help_view.to_html
    assert "&lt;a&gt;\nb\n</code></pre>" in html("```text\n<a>\nb\n```")
    assert html("## A <b>") == '<h2 id="a-b">A &lt;b&gt;</h2>\n'
    assert html("[x](javascript:a) [y](sizing.md) [z](api.md#rules)") == (
        '<p>[x](javascript:a) y <a href="/help/api/#rules">z</a></p>\n'
    )


def test_tables_are_tables() -> None:
    html = help_view.to_html("| a | b |\n| --- | --- |\n| 1 | 2 |\n")
    assert "<th>a</th>" in html and "<td>2</td>" in html


def test_other_pages_are_not_served(db: None) -> None:
    for name in ("security", "settings", "nothing"):
        assert Client().get(f"/help/{name}/").status_code == 404


@pytest.mark.django_db
def test_an_installation_without_docs_has_no_page(
    settings: Any, tmp_path: Path
) -> None:
    settings.BASE_DIR = tmp_path
    assert Client().get("/help/").status_code == 404


def test_pictures_are_left_out_and_sections_are_linked() -> None:
    html = help_view.to_html("![a picture](a.png)A [part](#two) of it.")
    assert html == '<p>A <a href="#two">part</a> of it.</p>\n'


def test_the_page_is_read_only(db: None) -> None:
    assert Client().post("/help/").status_code == 405
    assert Client().head("/help/").status_code == 200


def test_only_installed_guides_are_listed(settings: Any, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "api.md").write_text("# The API\n")
    settings.BASE_DIR = tmp_path
    assert help_view.titles() == [("The API", "/help/api/")]
    html = help_view.to_html("[x](api.md#rules) [y](connecting.md#first)")
    assert html == '<p><a href="/help/api/#rules">x</a> y</p>\n'
