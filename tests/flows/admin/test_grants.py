"""Roles with an end, requested and granted; the next message sees each effect."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import (
    AccessRequest,
    AuditEvent,
    Role,
    RoleAssignment,
    User,
)
from tests.support.html_browser import Browser
from tests.support.mcp_client import mcp_client
from tests.support.server import Portico
from tests.support.users import PASSWORD, make_user

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]
GRANTS = "/admin/accounts/roleassignment/"
REQUESTS = "/admin/accounts/accessrequest/"


@pytest.fixture
def carol(server: Portico, default_users: None) -> Iterator[Browser]:
    """carol, signed in to the admin."""
    with server.in_process() as browser:
        yield browser.sign_in("carol")


@pytest.fixture
def nina(server: Portico) -> Iterator[Browser]:
    """nina, a guest, signed in to the portal."""
    make_user("nina", "Guest")
    AccessRequest.objects.filter(user__username="nina").delete()
    with server.in_process() as browser:
        browser.open("/accounts/login/")
        browser.submit(browser.form("login"), login="nina", password=PASSWORD)
        yield browser


def pk(model: type, **of: str) -> str:
    """A row's key as a form sends it."""
    return str(model.objects.get(**of).pk)  # type: ignore[attr-defined]


def until(days: float) -> dict[str, str]:
    """The two form fields of a date and time."""
    end = timezone.now() + timedelta(days=days)
    return {"expires_at_0": f"{end:%Y-%m-%d}", "expires_at_1": f"{end:%H:%M:%S}"}


def role_of(name: str, role: str = "User") -> RoleAssignment:
    return RoleAssignment.objects.get(user__username=name, role__name=role)


def test_a_role_is_given_extended_and_ended(carol: Browser, server: Portico) -> None:
    make_user("olga", "Guest")
    client = mcp_client(server, "olga")
    assert not client.allowed("look")
    fields = {"user": "olga", "role": pk(Role, name="User")}
    carol.save(f"{GRANTS}add/", **fields, **until(1), reason="stands in")
    assert client.allowed("look")
    assignment = role_of("olga")
    assert assignment.granted_by == User.objects.get(username="carol")
    carol.act(GRANTS, "extend_week", assignment.pk)
    assert role_of("olga").expires_at == assignment.expires_at + timedelta(days=7)
    carol.act(GRANTS, "end_now", assignment.pk)
    assert "Unknown tool: look" in client.call("look").text
    carol.act(f"{GRANTS}?end=expired", "extend_day", assignment.pk)
    assert client.allowed("look"), "counted from now, since its end had passed"
    found = AuditEvent.objects.filter(object="olga has User").order_by("id")
    words = [event.action for event in found]
    assert words[-4:] == [
        "role.granted",
        "role.extended",
        "role.ended",
        "role.extended",
    ]
    carol.open(f"{GRANTS}{assignment.pk}/delete/").submit(
        carol.form("post"), post="yes"
    )
    assert not client.allowed("look")


def test_ending_the_last_role_revokes_the_tokens(
    carol: Browser, server: Portico
) -> None:
    make_user("olga", "User")
    client = mcp_client(server, "olga")
    carol.act(GRANTS, "end_now", role_of("olga").pk)
    assert client.call("look").status_code == 401


def test_access_is_requested_and_approved(
    carol: Browser, nina: Browser, server: Portico
) -> None:
    """Approval sets an end, the next message sees it, and both are audited."""
    client = mcp_client(server, "nina")
    nina.open("/portal/access/")
    day = f"{timezone.now() + timedelta(days=3):%Y-%m-%d}"
    user = pk(Role, name="User")
    nina.submit(nina.form("reason"), role=user, reason="the audit of May", until=day)
    assert "Request for User sent" in nina.page.text and not client.allowed("look")
    nina.submit(nina.form("reason"), role=user, reason="again")
    assert "You have already requested User" in nina.page.text
    request = AccessRequest.objects.get(user__username="nina", state="open")
    assert "waiting: " in carol.open("/admin/").page.text
    carol.open(f"{REQUESTS}{request.pk}/change/")
    assert "the audit of May" in carol.page.text and day in carol.page.text
    carol.submit(carol.form("answer"), "_approve", answer="You are welcome")
    assert client.allowed("look")
    assignment = role_of("nina")
    assert assignment.expires_at is not None and assignment.reason == "the audit of May"
    assert f"{assignment.expires_at:%Y-%m-%d}" == day
    assert assignment.granted_by == User.objects.get(username="carol")
    nina.open("/portal/access/")
    assert "User: approved" in nina.page.text and "You are welcome" in nina.page.text
    about = AuditEvent.objects.filter(object="nina requests User").order_by("id")
    actions = [(event.action, event.actor) for event in about][-2:]
    assert actions == [("access.requested", "nina"), ("access.approved", "carol")]
    page = carol.open(f"{REQUESTS}{request.pk}/change/").page
    assert page.status_code == 200 and "_approve" not in page.text
