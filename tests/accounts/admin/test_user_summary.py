"""The summary of one user: what it counts, and who sees which part."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.test import RequestFactory
from django.utils import timezone

from accounts.admin.user_summary import user_summary
from accounts.models import AccessRequest, AuditEvent, IssuedToken, Role, User
from tests.support.admin_browser import add_token, staff_member
from tests.support.users import account

pytestmark = pytest.mark.django_db
NOW = timezone.now()


def cards(actor: User, user: User) -> dict[str, tuple[Any, str]]:
    """Label -> (count, URL)."""
    request: Any = RequestFactory().get("/")
    request.user = User.objects.get(pk=actor.pk)
    return {str(name): (n, url) for name, n, url in user_summary(request, user)}


@pytest.fixture
def boss() -> User:
    return account("boss", is_superuser=True, is_staff=True)


def test_only_rows_of_the_user_are_counted(boss: User) -> None:
    alice, bob = account("alice"), account("bob")
    for user in (alice, alice, bob):
        add_token(user)
    add_token(alice, expires_at=NOW)
    revoked = add_token(alice)
    IssuedToken.objects.filter(pk=revoked.pk).revoke(actor="x", reason="y")
    for user, state in ((alice, "open"), (alice, "declined"), (bob, "open")):
        role = Role.objects.get(name="User")
        AccessRequest.objects.create(user=user, role=role, reason="r", state=state)
    for actor, decision in (
        ("alice", "denied"),
        ("alice", "allowed"),
        ("bob", "denied"),
    ):
        AuditEvent.objects.create(action="x", actor=actor, decision=decision)
    found = cards(boss, alice)
    counts = {name: count for name, (count, _url) in found.items()}
    assert counts == {
        "active tokens": 2,
        "last sign-in": "-",
        "denied": 1,
        "pending request": 1,
        "available tools": "→",
    }
    assert {name: url for name, (_count, url) in found.items()} == {
        "active tokens": "/admin/accounts/issuedtoken/?username=alice&state=active",
        "last sign-in": "/admin/accounts/auditevent/?actor=alice&action=user.signed_in",
        "denied": "/admin/accounts/auditevent/?actor=alice&decision__exact=denied",
        "pending request": "/admin/accounts/accessrequest/?q=alice&state__exact=open",
        "available tools": "/admin/access/check/?user=alice",
    }


def test_the_last_sign_in_is_shown_with_its_time(boss: User) -> None:
    alice = account("alice", last_login=NOW)
    assert f"{NOW:%Y-%m-%d %H:%M}" in cards(boss, alice)["last sign-in"][0]


@pytest.mark.parametrize(("rows", "shown"), [(100, 100), (101, "100+")])
def test_more_than_a_hundred_refusals_are_not_counted(
    boss: User, rows: int, shown: Any
) -> None:
    AuditEvent.objects.bulk_create(
        AuditEvent(action="x", actor="alice", decision="denied") for _ in range(rows)
    )
    assert cards(boss, account("alice"))["denied"][0] == shown


def test_a_name_cannot_change_the_query(boss: User) -> None:
    odd = User(username="a&state=x", pk=7)
    assert all("&state=x" not in url for _n, url in cards(boss, odd).values())


@pytest.mark.parametrize(
    ("codenames", "shown"),
    [
        ("", ""),
        ("view_issuedtoken", "active tokens"),
        ("view_auditevent", "last sign-in, denied"),
        ("view_accessrequest", "pending requests"),
        ("view_user view_role view_primitive", "available tools"),
        ("view_user view_role", ""),
    ],
)
def test_each_part_needs_the_permission_of_its_list(codenames: str, shown: str) -> None:
    vera = staff_member("vera", *codenames.split())
    assert ", ".join(cards(vera, account("alice"))) == shown


def test_without_the_access_check_there_is_no_link(
    boss: User, monkeypatch: Any
) -> None:
    site: Any = admin.site
    monkeypatch.delitem(site.pages, "access_check")
    assert "available tools" not in cards(boss, account("alice"))
