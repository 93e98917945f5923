"""Breadcrumbs: the names of the navigation, on every kind of page."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.contrib import admin

from accounts.admin_site.navigation.breadcrumbs import (
    LONGEST_CRUMB,
    breadcrumbs,
    without_repeats,
)
from accounts.models import Role, User
from tests.support.admin_browser import list_url
from tests.support.static_files import UNCOLLECTED
from tests.support.users import browser_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def root(carol: User, settings: Any) -> Any:
    settings.STORAGES = UNCOLLECTED
    return browser_of(carol)


def trail(root: Any, path: str) -> str:
    """The breadcrumbs of a page as text."""
    text = root.get(path).content.decode()
    found = re.search(r'<div class="breadcrumbs">(.*?)</div>', text, re.S)
    assert found, path
    return html.unescape(re.sub(r"<[^>]*>", "", found[1]))


def test_every_page_names_its_group(root: Any, carol: User, alice: User) -> None:
    role = Role.objects.get(name="User")
    users = "/admin/accounts/user"
    person = f"{users}/{carol.pk}"
    people, access = "Home › People", "Home › Access"
    pages = {
        "/admin/accounts/user/": f"{people} › Users",
        f"{person}/change/": f"{people} › Users › carol",
        f"{users}/{alice.pk}/delete/": f"{people} › Users › alice › Delete",
        f"{person}/history/": f"{people} › Users › carol › History of carol",
        "/admin/accounts/user/add/": f"{people} › Users › Add user",
        "/admin/users/invite/": f"{people} › Users › Invite",
        "/admin/users/import/": f"{people} › Import users",
        f"/admin/users/end-access/?person={carol.pk}": f"{people} › Users › carol › "
        "End all access of carol",
        f"/admin/accounts/role/{role.pk}/change/": f"{access} › Roles › User",
        "/admin/access/matrix/": f"{access} › Access matrix",
        "/admin/system/": "Home › Settings › System",
        "/admin/mcp_bridge/upstreamserver/add/": "Home › Tools › Upstream servers › "
        "Add upstream server",
        "/admin/accounts/auditevent/": "Home › Activity › Audit events",
    }
    found = {path: trail(root, path) for path in pages}
    assert found == pages


def test_the_groups_are_those_of_the_navigation(root: Any) -> None:
    """Every list of the registry: its group is the open one."""
    site: Any = admin.site
    for model in site._registry:
        path = list_url(model)
        text = root.get(path).content.decode()
        (opened,) = re.findall(
            r'aria-expanded="true" aria-controls[^>]*>([^<]+)<', text
        )
        assert trail(root, path).split(" › ")[1] == html.unescape(opened), path


def test_the_dashboard_has_none(root: Any) -> None:
    assert 'class="breadcrumbs"' not in root.get("/admin/").content.decode()


def test_links_lead_to_the_pages_above(root: Any, carol: User) -> None:
    path = f"/admin/accounts/user/{carol.pk}/change/"
    text = root.get(path).content.decode()
    assert '<a href="/admin/accounts/user/">Users</a> &rsaquo; ' in text
    assert '<span aria-current="page">carol</span></div>' in text


def test_names_are_escaped_and_cut(root: Any, carol: User) -> None:
    role = Role.objects.create(name=f"<b>{'x' * 97}")
    text = root.get(f"/admin/accounts/role/{role.pk}/change/").content.decode()
    (last,) = re.findall(r'<span aria-current="page">(.*?)</span></div>', text)
    assert last.startswith("&lt;b&gt;xxx") and len(html.unescape(last)) == LONGEST_CRUMB


def test_a_name_is_not_repeated() -> None:
    steps = [("Home", "/"), ("", ""), ("Users", "/u/"), ("users", "/u/?p=1"), ("A", "")]
    assert without_repeats(steps) == [("Home", "/"), ("Users", "/u/?p=1"), ("A", "")]


def test_a_page_without_group_has_its_title() -> None:
    found = breadcrumbs({"title": "Search"}, "/admin/search/", "")
    assert found == [("Home", "/admin/"), ("Search", "")]
    found = breadcrumbs({"title": "End"}, "/admin/users/end-access/", "People")
    assert found == [("Home", "/admin/"), ("People", ""), ("End", "")]
