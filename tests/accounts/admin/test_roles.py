"""Scopes and roles in the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from django.contrib import admin

from accounts.models import ClaimRule, Role, RoleAssignment, Scope, SignInProvider
from tests.support.admin_browser import (
    AdminBrowser,
    events_by,
    list_url,
    newest_event,
    row_url,
    staff_member,
)
from tests.support.users import account

pytestmark = pytest.mark.django_db
ADD = "/admin/accounts/role/add/"


@pytest.fixture
def rita() -> AdminBrowser:
    """May do everything with scopes and roles, and has the role Guest."""
    names = [f"{v}_{m}" for v in ("view", "add", "change", "delete") for m in MODELS]
    return AdminBrowser(staff_member("rita", *names, roles=("Guest",)))


MODELS = ("role", "scope")


def keys(*names: str) -> list[str]:
    return [str(Scope.objects.get(name=name).pk) for name in names]


def scopes_of(name: str) -> set[str]:
    return set(Role.objects.get(name=name).scopes.values_list("name", flat=True))


def test_a_role_gets_the_scopes_of_its_editor_only(rita: AdminBrowser) -> None:
    text = rita.refused_save(ADD, name="Reader", scopes=keys("User.Read"))
    assert "You do not have User.Read yourself" in text
    text = rita.refused_save(ADD, name="Boss", scopes=keys("Admin.Write"))
    assert "Only superusers can grant or remove administrative scopes." in text
    assert not Role.objects.filter(name__in=("Reader", "Boss")).exists()
    rita.save(ADD, name="Reader", scopes=keys("Guest.Read"))
    assert scopes_of("Reader") == {"Guest.Read"}
    assert events_by(rita.user) == [("role.added", "Reader", "")]


def test_the_networks_of_the_form_count(rita: AdminBrowser) -> None:
    """A scope held in one network is not granted in all."""
    Role.objects.filter(name="Guest").update(networks="10.0.0.0/8")
    sent: dict[str, Any] = {"name": "Reader", "scopes": keys("Guest.Read")}
    assert "You do not have Guest.Read" in rita.refused_save(ADD, **sent)
    rita.save(ADD, **sent, networks="10.1.0.0/16")
    assert Role.objects.get(name="Reader").networks == "10.1.0.0/16"


def test_a_role_is_changed_and_recorded(root: AdminBrowser) -> None:
    role = Role.objects.get(name="Guest")
    root.save(row_url(Role, role), scopes=keys("Guest.Read", "User.Read"))
    assert scopes_of("Guest") == {"Guest.Read", "User.Read"}
    event = newest_event("role.changed")
    assert (event.actor, event.object) == ("root", "Guest")
    assert event.changes == {"scopes": [["Guest.Read"], ["Guest.Read", "User.Read"]]}


def test_a_role_above_the_editor_is_read_only(rita: AdminBrowser) -> None:
    """Guest is the editor's own role, User has more scopes."""
    for name in ("Guest", "User", "Admin"):
        role = Role.objects.get(name=name)
        assert rita.post(row_url(Role, role), name="x").status_code == 403, name
        assert rita.delete(Role, role).status_code == 403, name
    assert Role.objects.count() == 3


def test_a_role_with_claim_rules_is_deleted_by_superusers(
    rita: AdminBrowser, root: AdminBrowser
) -> None:
    """Its claim rules would be deleted, which only superusers may change."""
    corp = SignInProvider.objects.create(slug="corp", name="Corp", client_id="x")
    for name in ("Ruled", "Free"):
        Role.objects.create(name=name)
    ruled, free = Role.objects.get(name="Ruled"), Role.objects.get(name="Free")
    ClaimRule.objects.create(provider=corp, claim="groups", value="x", role=ruled)
    assert rita.delete(Role, ruled).status_code == 403
    assert rita.delete(Role, free).status_code == 200
    assert set(Role.objects.values_list("name", flat=True)) >= {"Ruled"}
    assert not Role.objects.filter(name="Free").exists()
    assert events_by(rita.user) == [("role.deleted", "Free", "")]
    root.delete(Role, ruled)
    assert not Role.objects.filter(name="Ruled").exists()
    nobody = staff_member("nobody", "view_role")
    request: Any = type("Request", (), {"user": nobody})()
    page: Any = admin.site.get_model_admin(Role)
    assert not page.has_delete_permission(request)
    assert not page.has_delete_permission(request, Role.objects.create(name="x"))


def test_the_list_names_scopes_and_counts_assignments(root: AdminBrowser) -> None:
    for name in ("alice", "bob"):
        account(name, "User")
    page: Any = admin.site.get_model_admin(Role)
    rows = {row.name: row for row in page.get_queryset(None)}
    assert page.scope_names(rows["User"]) == "Guest.Read, User.Read, User.Write"
    Role.objects.create(name="Empty")
    rows = {row.name: row for row in page.get_queryset(None)}
    assert page.scope_names(rows["Empty"]) == "-"
    counts = {name: page.holders(row) for name, row in rows.items()}
    assert counts == {"User": 2, "Guest": 0, "Admin": 0, "Empty": 0}
    assert root.open(list_url(Role)).page.status_code == 200


def test_only_superusers_change_scopes(rita: AdminBrowser, root: AdminBrowser) -> None:
    unused = Scope.objects.create(name="unused")
    path = row_url(Scope, unused)
    assert rita.post(path, name="x").status_code == 403
    assert rita.delete(Scope, unused).status_code == 403
    root.save(path, description="Nothing uses it.")
    root.delete(Scope, unused)
    assert not Scope.objects.filter(name="unused").exists()
    assert events_by(rita.user) == []
    assert events_by(root.user) == [
        ("scope.changed", "unused", ""),
        ("scope.deleted", "unused", ""),
    ]


def test_a_scope_may_be_added(rita: AdminBrowser) -> None:
    """No role grants it yet."""
    rita.save("/admin/accounts/scope/add/", name="new.scope")
    assert events_by(rita.user) == [("scope.added", "new.scope", "")]


def test_the_list_of_scopes_names_their_roles() -> None:
    page: Any = admin.site.get_model_admin(Scope)
    rows = {row.name: page.given_by(row) for row in page.get_queryset(None)}
    assert rows["User.Read"] == "Admin, User"
    assert RoleAssignment.objects.count() == 0
    assert page.given_by(Scope.objects.create(name="unused")) == "-"


@pytest.mark.parametrize(
    ("language", "named"), [("en", "Scope of a role"), ("ko", "역할의 범위")]
)
def test_a_delete_page_names_the_rows_of_a_relation(language: str, named: str) -> None:
    boss = AdminBrowser(account("boss", is_staff=True, is_superuser=True))
    client: Any = boss.http.client  # type: ignore[attr-defined]
    client.cookies[settings.LANGUAGE_COOKIE_NAME] = language
    scope = Scope.objects.get(name="User.Read")
    text = boss.open(row_url(Scope, scope, "delete")).page.text
    assert f"{named}: " in text and "relationship" not in text
