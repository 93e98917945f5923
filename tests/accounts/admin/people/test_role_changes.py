"""One role of one person, changed by a button."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import Role, RoleAssignment, User
from tests.support.admin_browser import (
    AdminBrowser,
    events_by,
    row_url,
    staff_member,
)
from tests.support.users import account

pytestmark = pytest.mark.django_db
PATH = "/admin/users/role/"


@pytest.fixture
def dana() -> User:
    return account("dana")


@pytest.fixture
def lead() -> AdminBrowser:
    """Has the role User, and may grant and end roles."""
    codenames = ("view_user", "add_roleassignment", "change_roleassignment")
    return AdminBrowser(staff_member("lead", *codenames, roles=("User",)))


def press(browser: AdminBrowser, user: User, role: str, **fields: str) -> str:
    known = Role.objects.filter(name=role).first()
    sent = {"user": str(user.pk), "role": str(known.pk) if known else "", **fields}
    return str(browser.post(PATH, **sent).text)


def hours_left(user: User) -> Any:
    end = RoleAssignment.objects.get(user=user).expires_at
    return None if end is None else round((end - timezone.now()).total_seconds() / 3600)


def ends_in(user: User, **left: int) -> None:
    RoleAssignment.objects.filter(user=user).update(
        expires_at=timezone.now() + timedelta(**left)
    )


@pytest.mark.parametrize(
    ("chip", "hours"), [("8h", 8), ("2d", 48), ("7d", 168), ("none", None)]
)
def test_a_chip_gives_the_role(
    lead: AdminBrowser, dana: User, chip: str, hours: int | None
) -> None:
    press(lead, dana, "User", until_0=chip, reason="on call")
    assert hours_left(dana) == hours
    assert events_by(lead.user) == [("role.granted", "dana has User", "on call")]


def test_a_date_gives_the_role_until_its_end(lead: AdminBrowser, dana: User) -> None:
    press(lead, dana, "User", until_0="until", until_1_0="2999-12-31", until_1_1="")
    end = RoleAssignment.objects.get(user=dana).expires_at
    assert end is not None and timezone.localtime(end).year == 2999


def test_extending_starts_at_the_present_end(lead: AdminBrowser, dana: User) -> None:
    press(lead, dana, "User", until_0="8h")
    press(lead, dana, "User", until_0="2d", extend="yes")
    assert hours_left(dana) == 56
    ends_in(dana, hours=-5)
    press(lead, dana, "User", until_0="8h", extend="yes")
    assert hours_left(dana) == 8, "of an expired role: now"
    assert [e[0] for e in events_by(lead.user)] == [
        "role.granted",
        "role.extended",
        "role.extended",
    ]


def test_a_typed_date_is_the_end_itself(lead: AdminBrowser, dana: User) -> None:
    press(lead, dana, "User", until_0="8h")
    typed = {"until_1_0": "2999-12-31", "until_1_1": "12:00"}
    press(lead, dana, "User", until_0="until", extend="yes", **typed)
    end = RoleAssignment.objects.get(user=dana).expires_at
    assert end is not None and end.year == 2999


def test_a_longer_role_is_not_shortened(lead: AdminBrowser, dana: User) -> None:
    press(lead, dana, "User", until_0="2d")
    assert "dana has User already: until" in press(lead, dana, "User", until_0="8h")
    assert hours_left(dana) == 48


def test_ending_a_role(lead: AdminBrowser, dana: User) -> None:
    press(lead, dana, "User", until_0="2d")
    page = press(lead, dana, "User", end="yes")
    assert "dana has User: ended." in page
    assert RoleAssignment.objects.get(user=dana).expired
    assert events_by(lead.user)[1][:2] == ("role.ended", "dana has User")


@pytest.mark.parametrize(
    ("role", "fields", "text"),
    [
        ("Admin", {"until_0": "8h"}, "Only superusers"),
        ("Guest", {}, "Choose how long"),
        ("Guest", {"until_0": "x"}, "valid choice"),
        ("Guest", {"until_0": "until"}, "Enter a date"),
        ("", {"until_0": "8h"}, "Choose a role."),
    ],
)
def test_a_refusal_says_why(
    lead: AdminBrowser, dana: User, role: str, fields: dict[str, str], text: str
) -> None:
    assert text in press(lead, dana, role, **fields)
    assert not RoleAssignment.objects.filter(user=dana).exists()


@pytest.mark.parametrize("fields", [{"until_0": "8h"}, {"end": "yes"}])
def test_nobody_changes_their_own_roles(
    lead: AdminBrowser, fields: dict[str, str]
) -> None:
    before = list(RoleAssignment.objects.values())
    page = press(lead, lead.user, "User", **fields)
    assert "You cannot change your own roles" in page
    assert list(RoleAssignment.objects.values()) == before


@pytest.mark.parametrize(
    ("codename", "held", "fields"),
    [
        ("add_roleassignment", True, {"end": "yes"}),
        ("add_roleassignment", True, {"until_0": "2d", "extend": "yes"}),
        ("change_roleassignment", False, {"until_0": "8h"}),
    ],
)
def test_each_change_needs_its_permission(
    dana: User, codename: str, held: bool, fields: dict[str, str]
) -> None:
    """A change of Django's permission to add, and the other way round."""
    staff = staff_member("half", "view_user", codename, roles=("User",))
    if held:
        RoleAssignment.objects.grant(dana, Role.objects.get(name="User"))
        ends_in(dana, hours=8)
    before = list(RoleAssignment.objects.values())
    browser = AdminBrowser(staff)
    press(browser, dana, "User", **fields)
    assert browser.page.status_code == 403
    assert list(RoleAssignment.objects.values()) == before


@pytest.mark.parametrize(
    ("asked", "leads_to"),
    [
        ("/admin/access/check/?user=dana", "/admin/access/check/?user=dana"),
        ("https://evil.example/", ""),
        ("//evil.example/", ""),
        ("", ""),
    ],
)
def test_it_returns_to_the_page_that_had_the_button(
    root: AdminBrowser, dana: User, asked: str, leads_to: str
) -> None:
    press(root, dana, "User", until_0="8h", next=asked)
    assert str(root.page.url) == (leads_to or row_url(User, dana))


@pytest.mark.parametrize(
    ("codename", "status"),
    [("add_roleassignment", 200), ("change_roleassignment", 403)],
)
def test_an_expired_role_needs_the_permission_to_give(
    dana: User, codename: str, status: int
) -> None:
    browser = AdminBrowser(staff_member("half", "view_user", codename, roles=("User",)))
    RoleAssignment.objects.grant(dana, Role.objects.get(name="User"))
    ends_in(dana, hours=-1)
    press(browser, dana, "User", until_0="8h")
    assert browser.page.status_code == status
    assert RoleAssignment.objects.get(user=dana).expired == (status == 403)
