"""The admin site: who enters, its pages with their permissions, its navigation."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.contrib import admin
from django.contrib.admin.sites import all_sites
from django.contrib.auth.models import AnonymousUser, Permission
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db.models import Model
from django.http import Http404
from django.test import RequestFactory
from django.urls import resolve, reverse

from accounts.admin_site import dashboard, site
from accounts.admin_site.navigation.groups import Section
from accounts.models import Role, Scope, User
from tests.support.users import make_user, unguarded_users

pytestmark = pytest.mark.django_db


def menu(user: User) -> dict[str, list[str]]:
    """Section -> its entries for `user`."""
    request: Any = RequestFactory().get("/admin/")
    request.user = user
    groups = admin.site.get_app_list(request)
    return {g["app_label"]: [str(m["name"]) for m in g["models"]] for g in groups}


def test_the_menu_is_grouped_by_task(carol: User) -> None:
    found = menu(carol)
    assert list(found) == list(Section) and len(found) == 7
    assert found["overview"] == ["Overview"] and found["people"][0] == "Users"
    assert found["access"][:2] == ["Roles", "Role assignments"]
    assert found["clients"][:2] == ["OAuth clients", "Tokens"]
    assert found["activity"] == ["Audit events", "Audit seals"]


def test_the_menu_shows_only_pages_the_user_may_open() -> None:
    """A page checks its permission in the menu and when it is opened."""
    judy = make_user("judy", admin=True)
    unguarded_users().filter(pk=judy.pk).update(is_superuser=False)
    judy.refresh_from_db()
    assert menu(judy) == {"overview": ["Overview"]}
    permission = Permission.objects.get(codename="view_auditevent")
    judy.user_permissions.add(permission)
    found = menu(User.objects.get(pk=judy.pk))
    assert found == {"overview": ["Overview"], "activity": ["Audit events"]}


def request_of(user: Any, **query: str) -> Any:
    request: Any = RequestFactory().get("/admin/", query)
    request.user = user
    return request


def staff(*permissions: str, **fields: Any) -> User:
    user: User = User.objects.create(username="judy", **{"is_staff": True, **fields})
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


def with_factor(user: User) -> User:
    Authenticator.objects.create(user=user, type="totp", data={})
    return user


@pytest.mark.parametrize(
    ("fields", "required", "factor", "allowed"),
    [
        ({}, False, False, True),
        ({}, True, False, False),
        ({}, True, True, True),
        ({"is_staff": False}, False, True, False),
        ({"is_active": False}, False, True, False),
    ],
)
def test_active_staff_with_a_factor_may_enter(
    settings: Any, fields: dict[str, bool], required: bool, factor: bool, allowed: bool
) -> None:
    settings.STAFF_SECOND_FACTOR = required
    user = staff(**fields)
    if factor:
        with_factor(user)
    assert admin.site.has_permission(request_of(user)) is allowed


@pytest.mark.parametrize(
    ("required", "target"), [(False, "/admin/"), (True, "/portal/security/")]
)
def test_staff_who_are_signed_in_go_on(
    settings: Any, required: bool, target: str
) -> None:
    settings.STAFF_SECOND_FACTOR = required
    response = admin.site.login(request_of(staff()))
    assert (response.status_code, response.url) == (302, target)  # type: ignore[attr-defined]


def test_signed_in_people_without_rights_are_refused(alice: User) -> None:
    """A second sign-in would change nothing."""
    with pytest.raises(PermissionDenied):
        admin.site.login(request_of(alice))


@pytest.mark.parametrize(
    ("query", "target"), [({}, "/admin/"), ({"next": "/admin/x/"}, "/admin/x/")]
)
def test_others_use_the_sign_in_page_with_lockout(
    query: dict[str, str], target: str
) -> None:
    response: Any = admin.site.login(request_of(AnonymousUser(), **query))
    assert response.url == f"/accounts/login/?next={target}"


def test_passwords_are_changed_on_the_page_with_lockout(carol: User) -> None:
    response: Any = admin.site.password_change(request_of(carol))
    assert response.url == "/accounts/password/change/"
    response = admin.site.password_change_done(request_of(carol))
    assert response.url == "/portal/security/"


wrapped: Any = admin.site._wrapped  # type: ignore[attr-defined]
"""`admin.site` passes attributes on to it; a patch of the outside would not end."""


SITE_PAGES = dict(wrapped.pages)


class Open(site.SitePage):
    path, name, title = "open/", "open", "Open page"
    template, permissions = "admin/x.html", ("accounts.view_user", "accounts.view_role")
    place, parent = (Section.ACTIVITY, 1), ("index", "Home")

    def get(self, request: Any) -> Any:
        return self.page({"more": 1}, status=409)


class Highest(Open):
    name, superusers_only = "highest", True


def test_a_page_needs_all_its_permissions(carol: User) -> None:
    assert Open.allowed(request_of(carol))
    both = staff("view_user", "view_role")
    assert Open.allowed(request_of(both))
    both.user_permissions.set(Permission.objects.filter(codename="view_user"))
    assert not Open.allowed(request_of(User.objects.get(pk=both.pk)))


def test_a_page_of_superusers_ignores_permissions(carol: User) -> None:
    assert Highest.allowed(request_of(carol))
    assert not Highest.allowed(request_of(staff("view_user", "view_role")))


def test_a_view_checks_the_permission_too(carol: User) -> None:
    view = site.require_permission(Open)
    with pytest.raises(PermissionDenied):
        view(request_of(staff("view_user")))
    response = view(request_of(carol))
    assert response.status_code == 409 and response.template_name == "admin/x.html"
    shown = {name: response.context_data[name] for name in ("title", "parent", "more")}
    assert shown == {"title": "Open page", "parent": ("index", "Home"), "more": 1}
    assert "available_apps" in response.context_data


RESTRICTED = [page for page in wrapped.pages.values() if not page.for_all_staff]


@pytest.mark.parametrize("page", RESTRICTED, ids=lambda page: page.name)
def test_every_page_of_the_site_refuses_staff_without_permissions(page: Any) -> None:
    """Through its URL, as the site registers it."""
    view = resolve(reverse(f"admin:{page.name}")).func
    with pytest.raises(PermissionDenied):
        view(request_of(staff()))


def test_pages_are_registered_by_their_name(monkeypatch: Any) -> None:
    monkeypatch.setattr(wrapped, "pages", {})
    assert site.site_page(Open) is Open and site.site_page(Highest) is Highest
    assert wrapped.pages == {"open": Open, "highest": Highest}
    assert {name for name in SITE_PAGES if SITE_PAGES[name].for_all_staff} == {"search"}
    nameless = type("None", (site.SitePage,), {})
    with pytest.raises(ImproperlyConfigured, match="declares no permissions"):
        site.site_page(nameless)


def test_hidden_pages_are_not_in_the_menu(carol: User, monkeypatch: Any) -> None:
    hidden = type("Hidden", (Open,), {"in_menu": False, "name": "hidden", "title": "H"})
    monkeypatch.setattr(site, "reverse", lambda name: f"/{name}")
    monkeypatch.setattr(wrapped, "pages", {"a": Open, "b": hidden})
    found = menu(carol)["activity"]
    assert "Open page" in found and "H" not in found


def test_a_menu_entry_links_to_its_page(monkeypatch: Any) -> None:
    monkeypatch.setattr(site, "reverse", lambda name: f"/{name}")
    entry = site.menu_entry(Open)
    assert (entry["name"], entry["admin_url"]) == ("Open page", "/admin:open")
    assert entry["view_only"] and entry["add_url"] is None and entry["perms"] == {}


def test_one_app_keeps_djangos_order(carol: User) -> None:
    (found,) = admin.site.get_app_list(request_of(carol), "axes")
    assert found["app_label"] == "axes"


def test_the_group_of_a_page_without_a_model_is_known_by_its_path() -> None:
    """Also of pages that are not in the navigation."""
    found = wrapped.section_at("/admin/users/end-access/")
    assert found == Section.PEOPLE
    assert wrapped.section_at("/admin/policy/export/") == Section.ACCESS
    assert wrapped.section_at("/admin/accounts/user/") is None


def test_the_index_has_the_dashboard(carol: User, monkeypatch: Any) -> None:
    monkeypatch.setattr(dashboard, "dashboard_context", lambda request: {"a": 1})
    response = admin.site.index(request_of(carol), {"b": 2})
    shown: Any = response.context_data
    assert (shown["a"], shown["b"], str(shown["title"])) == (1, 2, "Overview")


def buttons(number: str, _request: Any, _row: Any) -> list[tuple[Any, str]]:
    return [(f"link {number}", "/")]


def cell(number: str, _request: Any, _row: Any) -> tuple[Any, str]:
    return f"cell {number}", "/"


def test_other_modules_add_links_to_rows(carol: User, monkeypatch: Any) -> None:
    monkeypatch.setattr(site, "_row_links", [])
    monkeypatch.setattr(site, "_row_cells", [])
    for number in ("1", "2"):
        site.row_link(User)(partial(buttons, number))
        site.row_cell(User)(partial(cell, number))
    site.row_link(Role)(lambda request, row: [("role", "/")])
    site.row_cell(Role)(lambda request, row: ("role", "/"))
    site.row_cell(User)(lambda request, row: None)
    request = request_of(carol)
    assert site.links_of(request, carol) == [("link 1", "/"), ("link 2", "/")]
    assert site.cells_of(request, carol) == [("cell 1", "/"), ("cell 2", "/")]
    assert site.links_of(request, None) == site.cells_of(request, None) == []


class WithAddress(admin.ModelAdmin):  # type: ignore[type-arg]
    view_on_site = staticmethod(lambda row: f"/rows/{row.pk}/")


@pytest.fixture
def rows_site() -> Any:
    """A second admin site, which later system checks do not see."""
    other = site.PorticoSite()
    other.register(Role, WithAddress)
    yield other
    all_sites.discard(other)


def kind_of(model: Any) -> str:
    return str(ContentType.objects.get_for_model(model).pk)


def test_the_address_of_a_row_is_for_those_who_see_it(
    carol: User, rows_site: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(site, "shortcut", lambda *arguments: arguments[1:])
    role = Role.objects.get(name="User")
    asked = (kind_of(Role), str(role.pk))
    assert rows_site.view_on_site(request_of(carol), *asked) == asked
    judy = staff("view_role")
    assert rows_site.view_on_site(request_of(judy), *asked) == asked
    for user, kind, key in (
        (User.objects.create(username="x", is_staff=True), *asked),
        (carol, kind_of(User), str(carol.pk)),
        (carol, kind_of(Role), "0"),
        (carol, "0", "1"),
    ):
        with pytest.raises(Http404):
            rows_site.view_on_site(request_of(user), kind, key)


def test_rows_of_relations_are_named_by_both_ends(db: None) -> None:
    """Deletion pages list them; Django calls them `Role_scopes object (1)`."""
    role = Role.objects.create(name="Named")
    role.scopes.set([Scope.objects.get_or_create(name="Named.Read")[0]])
    assert str(Role.scopes.through.objects.get(role=role)) == "Named: Named.Read"
    for model in admin.site._registry:
        for field in model._meta.local_many_to_many:
            through: Any = field.remote_field.through
            assert through.__str__ is not Model.__str__, through
