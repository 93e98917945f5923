"""The page of the search and its data: bad input, permissions, number of queries."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from accounts.admin_site.search.view import LONGEST_WORD
from accounts.models import User
from tests.support.page_tables import admin_page
from tests.support.static_files import UNCOLLECTED
from tests.support.users import browser_of

pytestmark = pytest.mark.django_db
APPS = ("accounts", "mcp_bridge")
HINT = "Find people, tools, roles"


@pytest.fixture(autouse=True)
def uncollected(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED


@pytest.fixture
def root(carol: User) -> Client:
    return browser_of(carol)


def page(browser: Client, word: str) -> Any:
    answer = browser.get("/admin/search/", {"q": word})
    return answer.status_code, answer.content.decode()


def data(browser: Client, word: str) -> Any:
    answer = browser.get("/admin/search/", {"q": word, "format": "json"})
    return answer.status_code, answer.json()


def test_the_page_works_without_a_script(root: Client, alice: User) -> None:
    status, text = page(root, "alice")
    assert status == 200 and "<h2>People</h2>" in text
    assert f'<a href="/admin/accounts/user/{alice.pk}/change/">alice</a>' in text
    assert '<form method="get" action="/admin/search/"' in text
    assert 'name="q" value="alice"' in text


def test_the_data_has_the_same_results(root: Client, alice: User) -> None:
    status, found = data(root, "  alice ")
    assert (status, found["q"], found["message"]) == (200, "alice", "")
    first = found["groups"][0]
    assert first["label"] == "People"
    assert first["results"][0]["url"] == f"/admin/accounts/user/{alice.pk}/change/"
    assert first["results"][0]["links"] == [
        {"title": "Access check", "url": "/admin/access/check/?user=alice"}
    ]


@pytest.mark.parametrize("word", ["", "   ", "\t\n", "\u3000"])
def test_blanks_get_a_hint(root: Client, word: str) -> None:
    status, text = page(root, word)
    assert status == 200 and HINT in text
    assert data(root, word)[1]["groups"] == []


def test_nothing_found_is_said(root: Client) -> None:
    status, text = page(root, "zzqq")
    assert status == 200 and "Nothing matches." in text
    assert data(root, "zzqq")[1]["message"] == "Nothing matches."


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("x" * (LONGEST_WORD + 1), "Enter at most 100 characters."),
        ("x" * 100_000, "Enter at most 100 characters."),
        ("a\x00b", "contains control characters. Remove them."),
        ("\x1b[2J", "contains control characters. Remove them."),
    ],
)
def test_bad_input_gets_a_clear_error(root: Client, word: str, problem: str) -> None:
    status, text = page(root, word)
    assert status == 400 and problem in text
    assert word[:50] in text or "\x00" in word
    status, found = data(root, word)
    assert status == 400 and problem in found["message"] and found["groups"] == []


@pytest.mark.parametrize(
    "word", ["x" * LONGEST_WORD, "%", "_", "<b>", "'", "\u200b", "😀"]
)
def test_odd_text_finds_nothing_and_is_escaped(root: Client, word: str) -> None:
    status, text = page(root, word)
    assert status == 200 and "Nothing matches." in text and "<b>" not in text


def test_bytes_that_are_no_utf_8_are_no_error(root: Client) -> None:
    assert root.get("/admin/search/?q=%ff%fe%ed%a0%80").status_code in (200, 400)


def test_other_methods_are_refused(root: Client) -> None:
    assert root.post("/admin/search/", {"q": "alice"}).status_code == 405


def test_only_staff_may_search(alice: User, client: Client) -> None:
    assert client.get("/admin/search/?q=alice").status_code == 302
    assert browser_of(alice).get("/admin/search/?q=alice").status_code in (302, 403)


def test_without_permissions_nothing_is_found_or_queried(
    alice: User, django_assert_num_queries: Any
) -> None:
    """Answers do not differ, so their length and time say nothing about rows."""
    judy = browser_of(User.objects.create(username="judy", is_staff=True))
    data(judy, "alice")
    with django_assert_num_queries(4) as queries:
        known = data(judy, "alice")
    with django_assert_num_queries(4):
        unknown = data(judy, "nobody-has-this")
    assert known[1]["groups"] == unknown[1]["groups"] == []
    assert not any("username" in q["sql"] and "LIKE" in q["sql"] for q in queries)


@pytest.mark.parametrize("word", ["al", "alice", "a1b2c3d4e5f60718293a4b5c6d7e8f90"])
def test_a_search_needs_few_queries(
    root: Client, word: str, django_assert_max_num_queries: Any
) -> None:
    """Two are for the session and its user."""
    data(root, word)
    with django_assert_max_num_queries(12) as queries:
        data(root, word)
    large = ("issuedtoken", "auditevent", "oauthclient", "role", "primitive")
    tables = [f'FROM "{app}_{name}"' for name in large for app in APPS]
    found = [q["sql"] for q in queries if any(one in q["sql"] for one in tables)]
    assert len(found) > 3 and all("LIMIT" in sql for sql in found)


def test_a_permission_opens_its_kind_only() -> None:
    judy = User.objects.create(username="judy", is_staff=True)
    judy.user_permissions.add(Permission.objects.get(codename="view_role"))
    found = data(browser_of(judy), "u")[1]["groups"]
    assert {group["label"] for group in found} == {"Roles"}


def test_the_search_is_in_korean(root: Client) -> None:
    answer = root.get("/admin/search/", headers={"accept-language": "ko"})
    assert "<h1>검색</h1>" in answer.content.decode()


def test_every_page_has_the_box_and_the_dialog(root: Client) -> None:
    text = root.get("/admin/accounts/role/").content.decode()
    assert 'id="to-search"' in text and '<dialog id="search"' in text
    popup = root.get("/admin/accounts/role/?_popup=1").content.decode()
    assert 'id="to-search"' not in popup and "<dialog" not in popup


def test_each_result_has_its_detail_and_its_links(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED
    rows = [
        {"url": "/u", "title": "<Dana>", "detail": "<d>", "links": [("Edit", "/e")]},
        {"url": "/v", "title": "Eve", "detail": "", "links": []},
    ]
    answer = {"word": '"x', "found": [{"label": "People", "results": rows}]}
    page = admin_page("admin/search.html", answer=answer, longest=7)
    first, second = re.findall(r'<li><a href="/[uv]">.*?</li>', page)
    assert first == (
        '<li><a href="/u">&lt;Dana&gt;</a> <span class="quiet">&lt;d&gt;</span>'
        ' <a class="chip" href="/e">Edit</a></li>'
    )
    assert second == '<li><a href="/v">Eve</a></li>'
    assert "<h2>People</h2>" in page and 'value="&quot;x" maxlength="7"' in page
    assert "errornote" not in page and "empty-note" not in page


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        ({"problem": "<bad>"}, '<p class="errornote">&lt;bad&gt;</p>'),
        ({"message": "<none>"}, '<p class="empty-note">&lt;none&gt;</p>'),
    ],
)
def test_why_nothing_is_found_is_shown(
    settings: Any, answer: dict[str, str], note: str
) -> None:
    settings.STORAGES = UNCOLLECTED
    assert note in admin_page("admin/search.html", answer=answer)
