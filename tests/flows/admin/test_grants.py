"""Roles with an end, requested and granted; the next message sees each effect."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group
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
    with Browser(server.url) as browser:
        yield browser.sign_in("carol")


@pytest.fixture
def nina(server: Portico) -> Iterator[Browser]:
    """nina, a guest, signed in to the portal."""
    make_user("nina", "Guest")
    AccessRequest.objects.filter(user__username="nina").delete()
    with Browser(server.url) as browser:
        browser.open("/accounts/login/")
        browser.submit(browser.form("login"), login="nina", password=PASSWORD)
        yield browser


@pytest.fixture
def rosa(server: Portico) -> Iterator[Browser]:
    """rosa, role manager, who has the role User until tomorrow."""
    rosa = make_user("rosa", "User", "Guest")
    rosa.is_staff = True
    rosa.save()
    rosa.groups.set(Group.objects.filter(name="Role managers"))
    own = RoleAssignment.objects.filter(user=rosa, role__name="User")
    own.update(expires_at=timezone.now() + timedelta(days=1))
    with Browser(server.url) as browser:
        yield browser.sign_in("rosa")


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
    assert role_of("olga").expires_at == assignment.expires_at + timedelta(days=7)  # type: ignore[operator]
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


@pytest.mark.parametrize("end", ["", "for_good", "dated", "soon", "expired", "odd"])
def test_assignments_are_filtered_by_their_end(carol: Browser, end: str) -> None:
    make_user("olga", "User", "Guest")
    RoleAssignment.objects.filter(user__username="olga", role__name="User").update(
        expires_at=timezone.now() + timedelta(days=2)
    )
    page = carol.open(f"{GRANTS}?q=olga&end={end}").page
    assert page.status_code == 200
    shown = {name for name in ("(ends soon)", "no end date</td>") if name in page.text}
    expected = {
        "soon": {"(ends soon)"},
        "dated": {"(ends soon)"},
        "for_good": {"no end date</td>"},
    }
    assert shown == expected.get(
        end, set() if end == "expired" else {*expected["soon"], *expected["for_good"]}
    )


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


def test_a_request_is_declined_with_a_reason(carol: Browser, nina: Browser) -> None:
    nina.open("/portal/access/")
    nina.submit(nina.form("reason"), role=pk(Role, name="User"), reason="fun", until="")
    request = AccessRequest.objects.get(user__username="nina", state="open")
    carol.open(f"{REQUESTS}{request.pk}/change/")
    carol.submit(carol.form("answer"), "_decline", answer="Not this month")
    nina.open("/portal/access/")
    assert "User: declined" in nina.page.text and "Not this month" in nina.page.text
    assert not RoleAssignment.objects.filter(
        user__username="nina", role__name="User"
    ).exists()


def test_a_request_is_withdrawn_and_odd_ones_are_refused(nina: Browser) -> None:
    """Users withdraw only their own requests; none answers 500."""
    for wrong in (
        {"role": "0"},
        {"role": pk(Role, name="Guest")},
        {"until": "2001-01-01"},
        {"until": "soon"},
        {"reason": ""},
    ):
        nina.open("/portal/access/")
        fields = {"role": pk(Role, name="User"), "reason": "why", "until": ""} | wrong
        assert nina.submit(nina.form("reason"), **fields).page.status_code == 400
    nina.open("/portal/access/")
    nina.submit(nina.form("reason"), role=pk(Role, name="User"), reason="r", until="")
    request = AccessRequest.objects.get(user__username="nina")
    nina.submit(nina.form("withdraw"), "withdraw")
    request.refresh_from_db()
    assert request.state == "withdrawn" and "User: withdrawn" in nina.page.text
    form = nina.form("reason")
    nina.submit(form, withdraw=str(request.pk))
    assert "already decided" in nina.page.text
    other, _new = AccessRequest.objects.get_or_create(
        user=User.objects.get(username="bob"),
        role=request.role,
        reason="r",
        state="open",
    )
    assert nina.submit(form, withdraw=str(other.pk)).page.status_code == 404


def test_requests_are_decided_in_bulk(
    carol: Browser, nina: Browser, server: Portico
) -> None:
    """A request whose end has passed needs a new end."""
    client = mcp_client(server, "nina")
    ask = AccessRequest.objects.all().ask
    someone, role = User.objects.get(username="nina"), Role.objects.get(name="User")
    past = timezone.now() - timedelta(minutes=1)
    late = ask(someone, role, reason="late", until=past)
    carol.act(REQUESTS, "approve", late.pk)
    assert "has passed" in carol.page.text and not client.allowed("look")
    carol.open(f"{REQUESTS}{late.pk}/change/")
    carol.submit(carol.form("answer"), "_approve")
    assert "This time is in the past" in carol.page.text
    carol.act(REQUESTS, "decline", late.pk)
    request = ask(someone, role, reason="in time")
    carol.act(REQUESTS, "approve", request.pk)
    assert client.allowed("look") and role_of("nina").expires_at is None


def test_a_role_manager_grants_own_roles_only_until_their_end(
    rosa: Browser, server: Portico
) -> None:
    make_user("olga", "Guest")
    client = mcp_client(server, "olga")

    def give(role: str, days: float | None, user: str = "olga") -> str:
        rosa.open(f"{GRANTS}add/")
        end = until(days) if days else {"expires_at_0": "", "expires_at_1": ""}
        fields = {"user": user, "role": pk(Role, name=role), "reason": "r", **end}
        return rosa.submit(rosa.form("_save"), "_save", **fields).page.text

    assert "Only superusers can grant" in give("Admin", 0.1)
    assert "Choose an earlier end date" in give("User", 5)
    assert "Choose an earlier end date" in give("User", None)
    assert "You cannot change your own roles" in give("User", 0.1, "rosa")
    assert "superuser" in give("User", 0.1, "carol")
    assert "There is no such user. Check" in give("User", 0.1, "nobody")
    assert not client.allowed("look")
    give("User", 0.5)
    assert client.allowed("look")
    rosa.act(f"{GRANTS}?q=olga", "extend_month", role_of("olga").pk)
    assert "Choose an earlier end date" in rosa.page.text
    rosa.act(f"{GRANTS}?q=rosa", "extend_day", role_of("rosa").pk)
    assert "You cannot change your own roles" in rosa.page.text
    rosa.act(f"{GRANTS}?q=carol", "end_now", role_of("carol", "Admin").pk)
    assert not role_of("carol", "Admin").expired
    rosa.act(f"{GRANTS}?q=olga", "end_now", role_of("olga").pk)
    assert not client.allowed("look")


def test_a_role_manager_decides_requests_within_their_own_rights(
    rosa: Browser, nina: Browser, server: Portico
) -> None:
    """Role managers approve neither their own request nor roles they lack."""
    ask = AccessRequest.objects.all().ask
    nina_, rosa_ = (User.objects.get(username=n) for n in ("nina", "rosa"))
    AccessRequest.objects.filter(user=rosa_).delete()
    soon = timezone.now() + timedelta(hours=2)
    fine = ask(nina_, Role.objects.get(name="User"), reason="r", until=soon)
    much = ask(nina_, Role.objects.get(name="Admin"), reason="r")
    own = ask(rosa_, Role.objects.get(name="User"), reason="longer")
    client = mcp_client(server, "nina")
    for request in (much, own):
        rosa.open(f"{REQUESTS}{request.pk}/change/")
        rosa.submit(rosa.form("answer"), "_approve")
        assert "errornote" in rosa.page.text
    rosa.act(REQUESTS, "approve", fine.pk, much.pk, own.pk)
    states = [AccessRequest.objects.get(pk=a.pk).state for a in (fine, much, own)]
    assert states == ["approved", "open", "open"]
    assert client.allowed("look") and not client.allowed("rule")
