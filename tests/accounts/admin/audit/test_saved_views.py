"""Saved views of the audit: whose they are, and who sees and deletes them."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.admin.audit.saved_views import filter_parameters, visible_views
from accounts.models import SavedView, User
from tests.support.admin_browser import AdminBrowser, staff_member

pytestmark = pytest.mark.django_db
LIST = "/admin/accounts/auditevent/"
VIEWS = f"{LIST}views/"


@pytest.fixture
def vera() -> AdminBrowser:
    return AdminBrowser(staff_member("vera", "view_auditevent"))


@pytest.fixture
def olga() -> AdminBrowser:
    """May share."""
    return AdminBrowser(staff_member("olga", "view_auditevent", "add_savedview"))


def view_of(user: User, name: str, **columns: Any) -> SavedView:
    row: SavedView = SavedView.objects.create(owner=user, name=name, **columns)
    return row


def names() -> list[str]:
    return sorted(SavedView.objects.values_list("name", flat=True))


def test_a_view_is_saved_for_its_owner(vera: AdminBrowser) -> None:
    page = vera.post(VIEWS, name=" Denials ", query="?decision__exact=denied&p=3&e=1")
    row = SavedView.objects.get()
    assert (row.owner, row.name, row.query, row.shared) == (
        vera.user,
        "Denials",
        "decision__exact=denied",
        False,
    )
    assert page.url == f"{LIST}?decision__exact=denied"
    assert "View saved as Denials." in page.text


@pytest.mark.parametrize(
    ("who", "ticked", "shared"),
    [("vera", True, False), ("olga", True, True), ("olga", False, False)],
)
def test_sharing_needs_its_permission(
    vera: AdminBrowser, olga: AdminBrowser, who: str, ticked: bool, shared: bool
) -> None:
    browser = vera if who == "vera" else olga
    browser.post(VIEWS, name="x", query="", **({"shared": "on"} if ticked else {}))
    assert SavedView.objects.get().shared == shared
    assert browser.page.url == LIST


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": "", "query": ""}, "This field cannot be blank."),
        ({"query": ""}, "This field cannot be blank."),
        ({"name": "x" * 81, "query": ""}, "at most 80 characters"),
        ({"name": "mine", "query": ""}, "already exists"),
        (
            {"name": "x", "query": "changes__regex=x&actor=a"},
            "The audit cannot be filtered by changes__regex.",
        ),
    ],
)
def test_a_wrong_view_is_not_saved(
    vera: AdminBrowser, fields: dict[str, str], text: str
) -> None:
    view_of(vera.user, "mine")
    assert text in vera.post(VIEWS, **fields).text
    assert names() == ["mine"]


def test_two_people_may_use_one_name(vera: AdminBrowser, olga: AdminBrowser) -> None:
    view_of(vera.user, "mine")
    olga.post(VIEWS, name="mine", query="")
    assert names() == ["mine", "mine"]


def test_own_and_shared_views_are_offered(
    vera: AdminBrowser, olga: AdminBrowser
) -> None:
    view_of(vera.user, "a own")
    view_of(olga.user, "b shared", shared=True)
    view_of(olga.user, "c private")
    request: Any = type("Request", (), {"user": vera.user})()
    assert [row.name for row in visible_views(request)] == ["a own", "b shared"]
    SavedView.objects.bulk_create(
        SavedView(owner=vera.user, name=f"v{n}") for n in range(50)
    )
    assert len(visible_views(request)) == 50


def test_own_views_are_deleted_and_those_of_others_stay(
    vera: AdminBrowser, olga: AdminBrowser
) -> None:
    mine, other = view_of(vera.user, "mine"), view_of(vera.user, "other")
    theirs = view_of(olga.user, "theirs")
    shared = view_of(olga.user, "shared", shared=True)
    for row in (theirs, shared, mine):
        page = vera.post(VIEWS, drop=str(row.pk), name="x")
        assert page.url == LIST and page.status_code == 200
    assert names() == ["other", "shared", "theirs"]
    for odd in ("", "x", "9" * 40, "-1"):
        assert vera.post(VIEWS, drop=odd).status_code == 200
    assert names() == ["other", "shared", "theirs"] and other.pk


def test_superusers_delete_shared_views_of_others(
    root: AdminBrowser, olga: AdminBrowser
) -> None:
    private = view_of(olga.user, "private")
    shared = view_of(olga.user, "shared", shared=True)
    for row in (private, shared):
        root.post(VIEWS, drop=str(row.pk))
    assert names() == ["private"]


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("?actor=a&p=2", "actor=a"),
        ("actor=a&actor=b&e=1", "actor=a&actor=b"),
        ("q=a+b%26c", "q=a+b%26c"),
        ("", ""),
    ],
)
def test_page_and_error_flag_are_not_saved(query: str, kept: str) -> None:
    assert filter_parameters(query) == kept
