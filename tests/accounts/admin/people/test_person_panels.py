"""The panels of a person's page, and who sees which."""

from __future__ import annotations

import re

import pytest

from accounts.models import AuditEvent, Consent, User
from tests.support.admin_browser import (
    AdminBrowser,
    add_token,
    row_url,
    staff_member,
)
from tests.support.model_rows import client_row, session_row
from tests.support.users import account

pytestmark = pytest.mark.django_db
PANELS = {
    "view_roleassignment": "Roles",
    "view_issuedtoken": "Active tokens",
    "view_consent": "Connected apps",
    "view_usersession": "Browser sessions",
    "view_auditevent": "Last calls and denials",
}


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
