"""Groups of the navigation: every page has one, the group of the page is open."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.sites import all_sites
from django.contrib.auth.models import Group as StaffGroup
from django.contrib.auth.models import Permission
from django.test import RequestFactory

from accounts.admin_site.navigation.groups import (
    DEFAULT_PLACE,
    Section,
    group_of,
    grouped,
    menu,
    page_at,
    url_of,
)
from accounts.admin_site.site import PorticoSite, page_entry
from accounts.models import User
from tests.support.static_files import UNCOLLECTED
from tests.support.users import browser_of

pytestmark = pytest.mark.django_db
SITE: Any = admin.site


def pages_without_a_group(site: Any) -> list[str]:
    """Models and pages that do not say in which group they are."""
    models = [
        admin_of.opts.label
        for admin_of in site._registry.values()
        if getattr(admin_of, "place", DEFAULT_PLACE) == DEFAULT_PLACE
    ]
    return models + [p.name for p in site.pages.values() if p.place == DEFAULT_PLACE]


def test_every_registered_page_says_its_group() -> None:
    """A new model or page fails here until it has a `place`."""
    assert pages_without_a_group(SITE) == []


def test_a_new_model_without_a_group_is_found() -> None:
    other = PorticoSite()
    all_sites.discard(other)
    other.register(StaffGroup)
    assert pages_without_a_group(other) == ["auth.Group"]


def every_url(groups: list[Any]) -> list[str]:
    return [url_of(entry) for group in groups for entry in group["models"]]


def request_for(user: User, path: str = "/admin/") -> Any:
    request: Any = RequestFactory().get(path)
    request.user = user
    return request


def test_every_page_is_in_exactly_one_group(carol: User) -> None:
    """From the site's registry: models and pages, each once."""
    urls = every_url(SITE.get_app_list(request_for(carol)))
    models = [
        f"/admin/{m._meta.label_lower.replace('.', '/')}/" for m in SITE._registry
    ]
    pages = [f"/admin/{p.path}" for p in SITE.pages.values() if p.in_menu]
    assert Counter(urls) == Counter(["/admin/", *models, *pages])


def entry(name: str, url: str = "/x/") -> dict[str, Any]:
    return page_entry(name, name, url)


def test_groups_without_pages_are_left_out() -> None:
    found = grouped(
        [((Section.TOOLS, 1), entry("t")), ((Section.PEOPLE, 2), entry("p"))]
    )
    assert [group["app_label"] for group in found] == ["people", "tools"]
    assert grouped([]) == []


def test_a_group_is_ordered_by_rank_then_name() -> None:
    found = group_of(
        Section.ACTIVITY, [(2, entry("a")), (1, entry("c")), (1, entry("b"))]
    )
    assert [one["name"] for one in found["models"]] == ["b", "c", "a"]
    assert (found["name"], found["app_label"]) == ("Activity", "activity")


GROUPS = grouped(
    [
        ((Section.OVERVIEW, 0), entry("overview", "/admin/")),
        ((Section.ACCESS, 1), entry("policy", "/admin/policy/")),
        ((Section.ACCESS, 2), entry("draft", "/admin/policy/draft/")),
        ((Section.TOOLS, 1), {**entry("tool", ""), "add_url": "/admin/tool/add/"}),
    ]
)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/admin/", "overview"),
        ("/admin/policy/", "policy"),
        ("/admin/policy/1/change/", "policy"),
        ("/admin/policy/draft/2/", "draft"),
        ("/admin/tool/add/", "tool"),
        ("/admin/policyx/", ""),
        ("/admin/other/", ""),
    ],
)
def test_the_longest_url_at_or_above_a_path_is_its_page(path: str, name: str) -> None:
    found = page_at(GROUPS, path)
    assert (found[1]["name"] if found else "") == name


def test_the_group_of_the_page_is_open() -> None:
    """On a list, `aria-current` is `page`; on the page of a row it is `true`."""
    for path, current in (("/admin/policy/", "page"), ("/admin/policy/1/", "true")):
        overview, access, tools = menu(GROUPS, path)
        assert (overview.open, access.open, tools.open) == (False, True, False)
        assert [item.current for item in access.items] == [current, ""]
        assert overview.alone and not tools.alone
    assert [group.open for group in menu(GROUPS, "/admin/hidden/", "tools")] == [
        False,
        False,
        True,
    ]


@pytest.fixture
def judy(settings: Any) -> User:
    """A member of staff without permissions."""
    settings.STORAGES = UNCOLLECTED
    judy: User = User.objects.create(username="judy", is_staff=True)
    return judy


def test_a_group_without_permitted_pages_is_not_shown(judy: User) -> None:
    text = browser_of(judy).get("/admin/").content.decode()
    assert 'class="group"' in text and "menu-people" not in text
    assert "You do not have permission to view anything here" in text
    judy.user_permissions.add(Permission.objects.get(codename="view_user"))
    text = browser_of(judy).get("/admin/accounts/user/").content.decode()
    assert 'aria-expanded="true" aria-controls="menu-people">People</button>' in text
    assert 'href="/admin/accounts/user/" aria-current="page">Users</a>' in text
    assert "menu-activity" not in text and "Import users" not in text
    assert "You do not have permission to view anything here" not in text


def test_who_may_only_add_rows_reaches_the_form(judy: User) -> None:
    judy.user_permissions.add(Permission.objects.get(codename="add_user"))
    text = browser_of(judy).get("/admin/").content.decode()
    assert 'href="/admin/accounts/user/add/">Users</a>' in text


def test_the_navigation_is_in_korean(judy: User) -> None:
    judy.user_permissions.add(Permission.objects.get(codename="view_auditevent"))
    browser = browser_of(judy)
    text = browser.get("/admin/", headers={"accept-language": "ko"}).content.decode()
    assert ">활동</button>" in text and ">개요</a>" in text and ">메뉴</button>" in text


def test_the_overview_repeats_no_page(judy: User) -> None:
    """Each page is linked once, and none has a link to add a row."""
    judy.is_superuser = True
    judy.save()
    text = browser_of(judy).get("/admin/").content.decode()
    assert "All pages" not in text and 'class="addlink"' not in text
    assert text.count('href="/admin/accounts/scope/"') == 1


MENU = {
    "Overview": "Overview",
    "People": "Users, Invite, Invitations, Import users, Failed sign-ins,"
    " Browser sessions, Second factors, Linked identities",
    "Access": "Roles, Role assignments, Access requests, Access matrix, Access check,"
    " Scopes, Policy file",
    "Tools": "Tools, resources and prompts, Upstream servers, Review definitions",
    "Clients and tokens": "OAuth clients, Tokens, Revoked tokens, Consents,"
    " Authorization codes, Client document hosts, Client document copies",
    "Activity": "Audit events, Audit seals",
    "Settings": "System, Notification channels, Deliveries, Sign-in providers,"
    " Signing keys",
}
"""Group -> its pages, in their order."""


def test_the_pages_stand_in_their_order(carol: User) -> None:
    groups = menu(SITE.get_app_list(request_for(carol)), "/admin/")
    shown = {one.name: ", ".join(item.name for item in one.items) for one in groups}
    assert shown == MENU and list(shown) == list(MENU)
