"""Which rows each list finds, and what the page of each row shows.

After an intended change, write the files again and read the difference:
`NEW_OUTLINES=1 .venv/bin/python -m pytest tests/accounts/admin/test_list_outlines.py`
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from django.contrib import admin
from django.test import RequestFactory

from accounts.models import AuditEvent, User
from tests.support.admin_browser import list_url, row_url
from tests.support.admin_scene import superuser_of_scene
from tests.support.outlines import compare, difference
from tests.support.page_outline import address, content, steady
from tests.support.page_walk import LINK
from tests.support.users import browser_of

pytestmark = [pytest.mark.django_db, pytest.mark.once]
OUTLINES = Path(__file__).parent / "outlines"
SITE: Any = admin.site
PAGES = sorted(SITE._registry.values(), key=lambda page: page.opts.label)
WORDS = (
    "carol Admin Office mcp portico robot agent corp shop pay 192.0.2. example work"
).split()
"""Searched in each list, and entered in each box of its filters."""
ORDERED = ("id", "revoked_at", "asked_at", "created_at", "expire_date")
"""The first of these columns that a list has numbers its rows; some keys are random."""
BOX = re.compile(r'class="typed-filter">(.*?)</form>', re.DOTALL)
RIGHT = re.compile(r"^  option N: .* \| Can .*\n", re.MULTILINE)
"""A permission that an account or a group can have."""
NAME = re.compile(r'<input type="(?:text|search|number)" name="(\w+)"')


@pytest.fixture
def root() -> User:
    return superuser_of_scene()


def rows_of(page: Any) -> list[Any]:
    known = {one.name for one in page.opts.get_fields()}
    column = next((one for one in ORDERED if one in known), "pk")
    return list(page.model._default_manager.order_by(column))


def file_of(page: Any) -> str:
    return f"{page.opts.app_label}_{page.opts.object_name}.txt"


def queries_of(page: Any, text: str) -> Iterator[str]:
    """Those of the links of filters, of each box, and of searches."""
    links = [html.unescape(one) for one in LINK.findall(text) if one[0] == "?"]
    names = [name for form in BOX.findall(text) for name in NAME.findall(form)]
    for link in dict.fromkeys(links):
        if not {"o", "p", "all"} & {*parse_qs(link[1:], keep_blank_values=True)}:
            yield link[1:]
    for name in dict.fromkeys([*names, *(["q"] if page.search_fields else [])]):
        yield from (urlencode({name: word}) for word in WORDS)


def found(page: Any, reader: User, query: str, shown: str = "") -> str:
    """The query, or `shown` for it, and the numbers of the rows that it finds."""
    request: Any = RequestFactory().get(f"{list_url(page.model)}?{query}")
    request.user = reader
    listed = page.get_changelist_instance(request)
    keys = [row.pk for row in rows_of(page)]
    numbers = sorted(keys.index(row.pk) + 1 for row in listed.result_list)
    if not numbers and query.partition("=")[2] in WORDS:
        return ""  # Most words find nothing.
    return f"?{shown or address(query)}: {' '.join(map(str, numbers))}\n"


def searches(page: Any, reader: User) -> Iterator[str]:
    """Each searched column, and the rows found by the value of its first row."""
    for path in page.search_fields:
        pairs = page.model._default_manager.order_by(path).values_list("pk", path)
        values = {key: value for key, value in pairs if value}
        keys = [row.pk for row in rows_of(page) if row.pk in values]
        if keys:
            value = str(values[keys[0]])
            yield f"{path} {found(page, reader, urlencode({'q': value}), shown='q')}"


def test_filters_and_searches_find_what_they_found(root: User) -> None:
    browser, shown = browser_of(root), {}
    for page in PAGES:
        text = browser.get(list_url(page.model)).content.decode()
        rows = [f"{n} {steady(str(row))}" for n, row in enumerate(rows_of(page), 1)]
        lines = [found(page, root, query) for query in queries_of(page, text)]
        lines += searches(page, root)
        shown[file_of(page)] = "\n".join([*rows, "".join(lines)])
    compare(shown, OUTLINES / "found")


def chosen(page: Any) -> list[Any]:
    """Its rows; of the audit the newest event of each kind."""
    rows = rows_of(page)
    if page.model is AuditEvent:
        rows = list({(row.action, row.decision): row for row in rows}.values())
    return rows


def test_pages_of_rows_show_what_they_showed(root: User) -> None:
    """The page of the first row, and what differs on those of the others."""
    browser, shown = browser_of(root), {}
    for page in PAGES:
        parts, first = list[str](), ""
        for row in chosen(page):
            text = browser.get(row_url(page.model, row)).content.decode()
            lines = RIGHT.sub("", content(text))
            parts.append(f"# {steady(str(row))}\n{difference(first, lines)}")
            first = first or lines
        shown[file_of(page)] = "\n".join(parts)
    compare(shown, OUTLINES / "rows")


def test_the_search_finds_what_it_found(root: User) -> None:
    browser, found = browser_of(root), ""
    for word in (*WORDS, "a", "sign"):
        answer = browser.get("/admin/search/", {"q": word}).content.decode()
        found += f"# {word}\n{content(answer)}\n"
    compare({"search.txt": found}, OUTLINES / "search")
