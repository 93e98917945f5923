"""The panels of a person's page, and who sees which."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.admin.people.person_panels import person_badges
from accounts.models import (
    AuditEvent,
    Consent,
    Invitation,
    IssuedToken,
    RoleAssignment,
    User,
)
from tests.support.admin_browser import (
    AdminBrowser,
    add_token,
    list_url,
    row_url,
    staff_member,
)
from tests.support.model_rows import client_row, past, session_row, soon
from tests.support.page_tables import rows_on
from tests.support.users import account

pytestmark = pytest.mark.django_db
PANELS = {
    "view_roleassignment": "Roles",
    "view_issuedtoken": "Active tokens",
    "view_consent": "Connected apps",
    "view_usersession": "Browser sessions",
    "view_auditevent": "Last calls and denials",
}

ROLE_COLUMNS = ("Role", "Until", "Reason", "Granted by", "Change")


@pytest.fixture
def dana() -> User:
    """With one of everything."""
    dana = account("dana", "User")
    client = client_row("abc", name="Agent", client_type="public")
    Consent.objects.create(user=dana, client=client, scope="mcp")
    add_token(dana, client_id="abc")
    session_row(dana)
    for name, decision in (("whoami", "allowed"), ("deploy", "denied")):
        AuditEvent.objects.create(
            action="tool.called", actor="dana", object=f"tool {name}", decision=decision
        )
    AuditEvent.objects.create(
        action="message.allowed", actor="dana", object="initialize", decision="allowed"
    )
    return dana


def panels(page: str) -> dict[str, str]:
    """Heading -> HTML."""
    found = re.findall(
        r'<section class="panel"[^>]*><h2>([^<]+)</h2>(.*?)</section>', page, re.S
    )
    return dict(found)


def test_the_page_shows_everything_a_person_has(root: AdminBrowser, dana: User) -> None:
    shown = panels(root.open(row_url(User, dana)).page.text)
    assert list(shown) == list(PANELS.values())
    assert "User" in shown["Roles"] and "Agent" in shown["Active tokens"]
    assert "Agent" in shown["Connected apps"]
    assert "192.0.2.1" in shown["Browser sessions"]
    calls = shown["Last calls and denials"]
    assert "tool whoami" in calls and "denied" in calls and "initialize" not in calls


@pytest.mark.parametrize("codename", PANELS)
def test_each_panel_needs_its_permission(dana: User, codename: str) -> None:
    reader = AdminBrowser(staff_member("reader", "view_user", codename))
    shown = panels(reader.open(row_url(User, dana)).page.text)
    assert list(shown) == [PANELS[codename]]
    assert "/admin/users/role/" not in reader.page.text


def test_roles_that_one_may_not_change_have_no_buttons(dana: User) -> None:
    codenames = ("view_user", "view_roleassignment", "add_roleassignment")
    staff = staff_member("lead", *codenames, "change_roleassignment", roles=("Guest",))
    shown = panels(AdminBrowser(staff).open(row_url(User, dana)).page.text)["Roles"]
    assert 'name="end"' not in shown and ">Guest</option>" in shown
    assert ">Admin</option>" not in shown


def test_nobody_sees_buttons_for_their_own_roles() -> None:
    codenames = ("view_user", "view_roleassignment", "add_roleassignment")
    staff = staff_member("lead", *codenames, "change_roleassignment", roles=("User",))
    shown = panels(AdminBrowser(staff).open(row_url(User, staff)).page.text)["Roles"]
    assert "<form" not in shown


def test_the_state_is_shown(root: AdminBrowser) -> None:
    closed = account("closed", is_active=False, is_service_account=True)
    page = root.open(row_url(User, closed)).page.text
    states = re.search(r'<p class="states">(.*?)</p>', page, re.S)
    assert states and "deactivated" in states[1] and "service account" in states[1]


def test_the_roles_are_shown_with_their_columns(root: AdminBrowser, dana: User) -> None:
    held = RoleAssignment.objects.filter(user=dana)
    held.update(granted_by=root.user, reason="stands in")
    (row,) = rows_on(root.open(row_url(User, dana)).page.text, *ROLE_COLUMNS)
    assert list(row.values())[:4] == ["User", "no end date", "stands in", "root"]
    assert "End" in row["Change"] and "+" not in row["Change"]
    held.update(granted_by=None, reason="", expires_at=soon())
    (row,) = rows_on(root.open(row_url(User, dana)).page.text, *ROLE_COLUMNS)
    assert row["Until"] == "in 1 hour" and "+ 8 hours" in row["Change"]
    assert (row["Reason"], row["Granted by"]) == ("-", "-")


def test_an_expired_role_is_marked_and_offered_again(
    root: AdminBrowser, dana: User
) -> None:
    shown = panels(root.open(row_url(User, dana)).page.text)["Roles"]
    assert ">User</option>" not in shown and ">Admin</option>" in shown
    RoleAssignment.objects.filter(user=dana).update(expires_at=past())
    page = root.open(row_url(User, dana)).page.text
    (row,) = rows_on(page, *ROLE_COLUMNS)
    assert "expired" in row["Until"] and "End" not in row["Change"]
    assert ">User</option>" in panels(page)["Roles"]


def test_a_call_has_the_colour_of_its_decision(root: AdminBrowser, dana: User) -> None:
    calls = panels(root.open(row_url(User, dana)).page.text)["Last calls and denials"]
    for tool, look in (("whoami", "good"), ("deploy", "bad")):
        (item,) = [one for one in calls.split("<li>") if f"tool {tool}" in one]
        assert f'<span class="badge {look}">' in item


def test_the_newest_tokens_come_first_and_all_are_linked(
    root: AdminBrowser, dana: User
) -> None:
    for hours in range(6):
        used = timezone.now() - timedelta(hours=hours + 1)
        add_token(dana, name=f"used-{hours}", kind="personal", last_used_at=used)
    IssuedToken.objects.exclude(kind="personal").delete()
    shown = panels(root.open(row_url(User, dana)).page.text)["Active tokens"]
    assert re.findall(r"used-\d", shown) == [f"used-{n}" for n in range(5)]
    link = f"{list_url(IssuedToken)}?username=dana&amp;state=active"
    assert f'<a href="{link}">Show all</a>' in shown


@pytest.mark.parametrize(
    ("columns", "badges"),
    [
        ({}, "active:good"),
        ({"is_active": False}, "deactivated:bad"),
        ({"is_service_account": True}, "active:good service account:"),
        ({"is_staff": True}, "active:good staff:"),
        ({"is_staff": True, "is_superuser": True}, "active:good superuser:warn"),
    ],
)
def test_each_state_has_its_badge(columns: dict[str, bool], badges: str) -> None:
    shown = person_badges(account("dana", **columns))
    assert " ".join(f"{text}:{look}" for text, look in shown) == badges


def test_a_pending_invitation_is_a_state() -> None:
    dana = account("dana")
    Invitation.objects.issue(dana, actor="command line")
    assert ("invitation pending", "warn") in person_badges(dana)
