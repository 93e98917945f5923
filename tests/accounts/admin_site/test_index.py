"""The overview as a page: what each part of its context looks like."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.template.loader import render_to_string

from accounts.admin_site.notices import Notice
from accounts.admin_site.overview.checklist import FirstStep
from tests.support.page_tables import rows_on
from tests.support.static_files import UNCOLLECTED

pytestmark = pytest.mark.once
ROW = {"url": "/log", "total": "1,234", "denied": "34"}
ROW_WIDTHS = {"total_width": 100.0, "allowed_width": 97.2, "denied_width": 2.8}


@pytest.fixture(autouse=True)
def uncollected(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED


def index(**context: Any) -> str:
    """The content of the page."""
    page = render_to_string("admin/index.html", {"title": "Overview", **context})
    return page.partition('<section class="panel')[2]


def test_urgent_notices_are_marked_and_linked() -> None:
    now = Notice("<now>", "/x", urgent=True)
    page = index(notices=[now, Notice("later", "/y"), Notice("no link")])
    items = re.findall(r"<li>(.*?)</li>", page)
    mark = '<span class="badge bad">urgent</span> '
    assert items[:3] == [
        f'{mark}<a href="/x">&lt;now&gt;</a>',
        '<a href="/y">later</a>',
        "no link",
    ]
    assert "Nothing needs attention." not in page
    assert "Nothing needs attention." in index(notices=[])


def test_steps_that_are_done_have_no_link() -> None:
    steps = [
        FirstStep("<one>", "because", "/one", False),
        FirstStep("two", "done with", "/two", True),
    ]
    page = index(steps=steps)
    open_step, done = re.findall(r"<li[ >].*?</li>", page)[:2]
    assert '<a href="/one">&lt;one&gt;</a>' in open_step and "because" in open_step
    assert '<span class="badge good">done</span> two' in done and "href" not in done
    assert 'action="/admin/first-steps/"' in page and "First steps" in page
    assert "First steps" not in index(steps=[])


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0, ""), (1, "1 hour is not counted"), (3, "3 hours are not counted")],
)
def test_the_figures_are_shown_to_those_who_may_see_them(hours: int, text: str) -> None:
    cards = [("<calls>", "1,234", "/calls"), ("p50", "12 ms", "")]
    spans = [("24h", False), ("7d", True), ("30d", False)]
    page = index(cards=cards, spans=spans, uncounted=hours, charts=[], lists=[])
    assert '<a href="/calls"><strong>1,234</strong> &lt;calls&gt;</a>' in page
    assert "<li><strong>12 ms</strong> p50</li>" in page
    links = re.findall(r'<a href="(\?range=\w+)"([^>]*)>([^<]*)</a>', page)
    assert links == [
        ("?range=24h", "", "24 hours"),
        ("?range=7d", ' aria-current="page"', "7 days"),
        ("?range=30d", "", "30 days"),
    ]
    assert ("not counted" in page) == bool(hours) and text in page
    assert "range=" not in index(cards=[], spans=spans)


def test_each_list_has_its_columns() -> None:
    rows = [{**ROW, **ROW_WIDTHS, "name": "<tool>"}]
    page = index(cards=[("a", "b", "")], lists=[("Tools", rows), ("Actors", [])])
    (row,) = rows_on(page, "Name", "All", "Denied")
    assert row == {"Name": "<tool>", "All": "1,234", "Denied": "34"}
    assert '<a href="/log">&lt;tool&gt;</a>' in page
    assert 'width="100.0" height="2" class="bad"' in page and 'width="97.2"' in page
    assert "<h2>Tools</h2>" in page and "<h2>Actors</h2>" in page
    assert page.count("No activity in this period.") == 1


@pytest.mark.parametrize("apps", [0, 1, 2])
def test_who_may_view_nothing_reads_why(apps: int) -> None:
    page = index(available_apps=[{"name": "x", "models": []}] * apps)
    assert ("You do not have permission to view anything here" in page) == (apps < 2)
