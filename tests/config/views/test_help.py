"""The page /help/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from accounts.http.help.links import SECTIONS, slug
from config.views import help as help_view
from tests.support.static_files import UNCOLLECTED

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def read_again(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED
    help_view.page.cache_clear()


@pytest.mark.django_db
def test_the_page_has_an_anchor_for_each_section() -> None:
    response = Client().get("/help/")
    html = response.content.decode()
    assert response.status_code == 200
    for title in SECTIONS:
        assert f'<h2 id="{slug(title)}">{title}</h2>' in html
    assert "<strong>Cause.</strong>" in html and "<code>Retry-After</code>" in html
    assert "<em>OAuth clients</em>" in html and "```" not in html


def test_blocks_are_escaped() -> None:
    assert help_view.block("```text\n<a>\nb\n```") == "<pre>&lt;a&gt;\nb\n</pre>"
    assert help_view.block("## A <b>") == '<h2 id="a-b">A &lt;b&gt;</h2>'
    assert help_view.block("`<x>` **y** *z*") == (
        "<p><code>&lt;x&gt;</code> <strong>y</strong> <em>z</em></p>"
    )


@pytest.mark.django_db
def test_an_installation_without_docs_has_no_page(
    settings: Any, tmp_path: Path
) -> None:
    settings.BASE_DIR = tmp_path
    assert Client().get("/help/").status_code == 404
