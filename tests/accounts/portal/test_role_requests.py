"""Access requests of the portal: asked with a reason, withdrawn while open."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import AccessRequest, AuditEvent, Role, RoleAssignment, User
from tests.support.page_tables import rows_on

PAGE = "/portal/access/"


def role(name: str = "Admin") -> Role:
    return Role.objects.get(name=name)


def form(**changed: Any) -> dict[str, Any]:
    return {"role": role().pk, "reason": "the quarter's report", **changed}


def asked(user: User, **columns: Any) -> AccessRequest:
    return AccessRequest.objects.create(
        user=user, role=role(), reason="work", **columns
    )


def test_a_request_is_stored_and_recorded(browser: Client, alice: User) -> None:
    answer = browser.post(PAGE, form())
    assert answer.status_code == 302 and answer["Location"] == PAGE
    row = AccessRequest.objects.get()
    assert (row.user, row.role, row.state) == (alice, role(), "open")
    assert (row.reason, row.until) == ("the quarter's report", None)
    event = AuditEvent.objects.get(action="access.requested")
    assert (event.actor, event.object) == ("alice", "alice requests Admin")
    assert (event.reason, event.address) == ("the quarter's report", "127.0.0.1")
    page = browser.get(PAGE)
    assert "Request for Admin sent." in page.content.decode()
    assert [*page.context["asked"]] == [row]


def test_the_last_day_counts_to_its_end(browser: Client) -> None:
    """Today is a valid end, yesterday is not."""
    today = timezone.localdate()
    yesterday = today - timedelta(days=1)
    answer = browser.post(PAGE, form(until=yesterday.isoformat()))
    assert answer.status_code == 400 and "until" in answer.context["form"].errors
    assert not AccessRequest.objects.exists()
    assert browser.post(PAGE, form(until=today.isoformat())).status_code == 302
    until = timezone.localtime(AccessRequest.objects.get().until)
    assert (until.date(), until.hour, until.minute) == (today, 23, 59)


@pytest.mark.parametrize(
    "wrong",
    [
        {"role": "0"},
        {"role": ""},
        {"reason": ""},
        {"reason": "x" * 256},
        {"until": "9999-12-31"},
        {"until": "2027-02-30"},
    ],
)
def test_an_invalid_request_is_shown_again(
    browser: Client, wrong: dict[str, Any]
) -> None:
    answer = browser.post(PAGE, form(**wrong))
    assert answer.status_code == 400 and set(answer.context["form"].errors) == {*wrong}
    assert not AccessRequest.objects.exists()


def test_a_reason_of_the_full_length_is_kept(browser: Client) -> None:
    assert browser.post(PAGE, form(reason="x" * 255)).status_code == 302
    assert AccessRequest.objects.get().reason == "x" * 255


def test_a_refused_request_says_why_beside_the_role(
    browser: Client, alice: User
) -> None:
    asked(alice)
    errors = browser.post(PAGE, form()).context["form"].errors
    assert "Admin" in errors["role"][0] and list(errors) == ["role"]


def test_roles_held_without_an_end_are_not_offered(
    browser: Client, alice: User, bob: User
) -> None:
    """A role that ends may be asked for again; another's roles do not matter."""
    RoleAssignment.objects.grant(bob, role())
    later = timezone.now() + timedelta(days=1)
    RoleAssignment.objects.grant(alice, role("Guest"), expires_at=later)
    page = browser.get(PAGE)
    offered = {row.name for row in page.context["form"].fields["role"].queryset}
    assert {"Admin", "Guest"} <= offered and "User" not in offered
    assert {a.role.name for a in page.context["held"]} == {"User", "Guest"}
    answer = browser.post(PAGE, form(role=role("User").pk))
    assert answer.status_code == 400 and not AccessRequest.objects.exists()


def test_a_second_request_for_the_role_is_refused(browser: Client, alice: User) -> None:
    asked(alice)
    answer = browser.post(PAGE, form())
    assert answer.status_code == 400 and "role" in answer.context["form"].errors
    assert AccessRequest.objects.count() == 1
    assert not AuditEvent.objects.filter(action="access.requested").exists()


def test_an_open_request_is_withdrawn(browser: Client, alice: User, bob: User) -> None:
    mine, theirs = asked(alice), asked(bob)
    assert browser.post(PAGE, {"withdraw": mine.pk}).status_code == 302
    mine.refresh_from_db()
    theirs.refresh_from_db()
    assert (mine.state, theirs.state) == ("withdrawn", "open")
    event = AuditEvent.objects.get(action="access.withdrawn")
    assert (event.actor, event.object) == ("alice", "alice requests Admin")
    assert (event.reason, event.address) == ("work", "127.0.0.1")


def test_a_decided_request_stays_decided(browser: Client, alice: User) -> None:
    mine = asked(alice, state="declined")
    answer = browser.post(PAGE, {"withdraw": mine.pk})
    assert answer.status_code == 302 and answer["Location"] == PAGE
    mine.refresh_from_db()
    assert mine.state == "declined"
    assert not AuditEvent.objects.filter(action="access.withdrawn").exists()
    assert "already decided" in browser.get(PAGE).content.decode()


def test_the_list_has_the_newest_fifty(browser: Client, alice: User) -> None:
    AccessRequest.objects.bulk_create(
        AccessRequest(user=alice, role=role(), reason=str(n), state="declined")
        for n in range(52)
    )
    rows = browser.get(PAGE).context["asked"]
    assert len(rows) == 50 and rows[0].reason == "51"


@pytest.mark.parametrize("state", ["open", "approved", "declined", "withdrawn"])
def test_only_an_open_request_can_be_withdrawn(
    browser: Client, alice: User, state: str
) -> None:
    row = asked(alice, state=state, answer="<because>")
    page = browser.get(PAGE).content.decode()
    assert (f'name="withdraw" value="{row.pk}"' in page) == (state == "open")
    assert ("Granted with no end date" in page) == (state == "approved")
    assert (
        "&lt;because&gt;" in page
        and f"<h2>Admin: {row.get_state_display()}</h2>" in page
    )


def test_roles_are_shown_with_their_columns(browser: Client, alice: User) -> None:
    now, head = timezone.now(), ("Role", "Until", "Reason")
    RoleAssignment.objects.filter(user=alice).update(reason="<why>")
    RoleAssignment.objects.grant(alice, role(), expires_at=now - timedelta(hours=1))
    rows = rows_on(browser.get(PAGE).content.decode(), *head)
    assert [list(row.values()) for row in rows] == [
        ["Admin", "1 hour ago (ended)", ""],
        ["User", "no end date", "<why>"],
    ]
    RoleAssignment.objects.all().delete()
    assert "You have no roles yet." in browser.get(PAGE).content.decode()
