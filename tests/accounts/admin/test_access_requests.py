"""Access requests in the admin: approve or decline."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.utils import timezone

from accounts.admin.access_requests import DecisionForm
from accounts.models import AccessRequest, Role, RoleAssignment, User
from accounts.models.access_requests import RequestNotPossible
from tests.support.admin_browser import (
    AdminBrowser,
    events_by,
    newest_event,
    row_url,
    staff_member,
)
from tests.support.users import account

pytestmark = pytest.mark.django_db
PAGE: Any = admin.site.get_model_admin(AccessRequest)
NOW = timezone.now().replace(microsecond=0)
DAY = timedelta(days=1)


@pytest.fixture
def frozen(monkeypatch: Any) -> datetime:
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    return NOW


@pytest.fixture
def rita() -> AdminBrowser:
    needed = ("view_accessrequest", "change_accessrequest")
    return AdminBrowser(staff_member("rita", *needed, roles=("Guest",)))


def ask(user: User, role: str = "Guest", until: Any = None) -> AccessRequest:
    row: AccessRequest = AccessRequest.objects.create(
        user=user, role=Role.objects.get(name=role), reason="for May", until=until
    )
    return row


def two_fields(end: datetime | None) -> dict[str, str]:
    if end is None:
        return {"given_until_0": "", "given_until_1": ""}
    local = timezone.localtime(end)
    return {"given_until_0": f"{local:%Y-%m-%d}", "given_until_1": f"{local:%H:%M:%S}"}


def decide(
    browser: AdminBrowser, row: AccessRequest, button: str, **fields: Any
) -> Any:
    """Press a button on the page of the request; returns its text."""
    path = row_url(AccessRequest, row)
    form = browser.open(path).form("answer")
    browser.submit(form, button, **fields)
    row.refresh_from_db()
    return browser.page.text


def state_of(row: AccessRequest) -> str:
    row.refresh_from_db()
    return str(row.state)


def test_a_request_is_approved_until_the_end_it_asks_for(root: AdminBrowser) -> None:
    alice, bob = account("alice"), account("bob")
    row, other = ask(alice, until=NOW + 3 * DAY), ask(bob)
    page = decide(root, row, "_approve", answer="You are welcome")
    assert "alice requests Guest: approved." in page
    assert (row.state, row.decided_by, row.answer, row.given_until) == (
        "approved",
        root.user,
        "You are welcome",
        NOW + 3 * DAY,
    )
    given = RoleAssignment.objects.get()
    assert (given.user, given.expires_at) == (alice, NOW + 3 * DAY)
    assert (given.granted_by, given.reason) == (root.user, "for May")
    assert state_of(other) == "open"
    assert events_by(root.user) == [
        ("access.approved", "alice requests Guest", "for May"),
        ("role.granted", "alice has Guest", "for May"),
    ]
    end = str(NOW + 3 * DAY)
    assert newest_event("access.approved").changes == {"expires_at": [end, end]}
    assert LogEntry.objects.get().change_message == "approved"


def test_another_end_may_be_given(root: AdminBrowser) -> None:
    row = ask(account("alice"), until=NOW + 3 * DAY)
    decide(root, row, "_approve", **two_fields(NOW + 9 * DAY))
    assert RoleAssignment.objects.get().expires_at == NOW + 9 * DAY
    asked, given = newest_event("access.approved").changes["expires_at"]
    assert (asked, given) == (str(NOW + 3 * DAY), str(NOW + 9 * DAY))


def test_no_end_is_recorded_as_empty(root: AdminBrowser) -> None:
    decide(root, ask(account("alice")), "_approve")
    assert newest_event("access.approved").changes == {"expires_at": ["", ""]}


def test_a_request_is_declined_with_an_answer(root: AdminBrowser) -> None:
    row = ask(account("alice"))
    page = decide(root, row, "_decline", answer="Not this month")
    assert "alice requests Guest: declined." in page
    assert (row.state, row.decided_by, row.answer) == (
        "declined",
        root.user,
        "Not this month",
    )
    assert not RoleAssignment.objects.exists()
    assert events_by(root.user) == [
        ("access.declined", "alice requests Guest", "Not this month")
    ]
    assert LogEntry.objects.get().change_message == "declined"


def test_a_longer_grant_is_kept_without_an_event(root: AdminBrowser) -> None:
    alice = account("alice")
    role = Role.objects.get(name="Guest")
    RoleAssignment.objects.grant(alice, role, reason="provider")
    decide(root, ask(alice, until=NOW + DAY), "_approve")
    assert RoleAssignment.objects.get().reason == "provider"
    assert [event[0] for event in events_by(root.user)] == ["access.approved"]
    assert newest_event("access.approved").changes["expires_at"][1] == ""


def test_an_end_in_the_past_is_refused_but_may_be_declined(
    root: AdminBrowser, frozen: datetime
) -> None:
    row = ask(account("alice"))
    for end in (frozen, frozen - DAY):
        text = decide(root, row, "_approve", **two_fields(end))
        assert "This time is in the past. Choose a later one." in text
        assert row.state == "open"
    decide(root, row, "_decline", **two_fields(frozen - DAY))
    assert row.state == "declined"


def test_the_next_second_is_no_past(root: AdminBrowser, frozen: datetime) -> None:
    row = ask(account("alice"))
    decide(root, row, "_approve", **two_fields(frozen + timedelta(seconds=1)))
    assert row.state == "approved"


@pytest.mark.parametrize(
    ("who", "role", "text"),
    [
        ("rita", "Guest", "You cannot change your own roles"),
        ("bert", "User", "You do not have User.Read, User.Write yourself"),
        ("bert", "Admin", "Only superusers can grant"),
    ],
)
def test_nobody_approves_more_than_they_have(
    rita: AdminBrowser, who: str, role: str, text: str
) -> None:
    user = rita.user if who == "rita" else account(who)
    row = ask(user, role)
    held = RoleAssignment.objects.count()
    assert text in decide(rita, row, "_approve") and row.state == "open"
    page = rita.run(AccessRequest, "approve", row)
    assert text in page and state_of(row) == "open"
    assert RoleAssignment.objects.count() == held and events_by(rita.user) == []
    decide(rita, row, "_decline")
    assert row.state == "declined"


def test_what_one_has_may_be_approved(rita: AdminBrowser) -> None:
    """Not beyond the end of one's own role."""
    RoleAssignment.objects.filter(user=rita.user).update(expires_at=NOW + 2 * DAY)
    fine, much = ask(account("bert"), until=NOW + DAY), ask(account("ben"))
    longer = ask(account("bea"), until=NOW + 3 * DAY)
    page = rita.run(AccessRequest, "approve", fine, much, longer)
    assert page.count("Choose an earlier end date") == 2
    states = [state_of(row) for row in (fine, much, longer)]
    assert states == ["approved", "open", "open"]


def test_open_requests_are_decided_in_bulk(
    root: AdminBrowser, frozen: datetime
) -> None:
    rows = {name: ask(account(name)) for name in ("alice", "bob", "done")}
    AccessRequest.objects.filter(pk=rows["done"].pk).update(state="declined")
    late = ask(account("late"), until=frozen)
    soon = ask(account("soon"), until=frozen + timedelta(seconds=1))
    chosen = (rows["alice"], rows["done"], late, soon)
    page = root.run(AccessRequest, "approve", *chosen)
    assert "late requests Guest: the requested end date has passed." in page
    assert "already decided" not in page
    held = RoleAssignment.objects.values_list("user__username", "expires_at")
    assert set(held) == {("alice", None), ("soon", frozen + timedelta(seconds=1))}
    page = root.run(AccessRequest, "decline", rows["bob"], rows["done"], late)
    assert "bob requests Guest: declined." in page and "already decided" not in page
    assert state_of(rows["bob"]) == state_of(late) == "declined"
    assert [event[0] for event in events_by(root.user)].count("access.declined") == 2


@pytest.mark.parametrize("verb", ["approve", "decline"])
def test_a_request_decided_meanwhile_is_reported(
    root: AdminBrowser, monkeypatch: Any, verb: str
) -> None:
    def decided(self: AccessRequest, **_kwargs: Any) -> None:
        raise RequestNotPossible(f"{self}: already decided.")

    row = ask(account("alice"))
    monkeypatch.setattr(AccessRequest, verb, decided)
    page = root.run(AccessRequest, verb, row)
    assert "alice requests Guest: already decided." in page
    page = decide(root, row, f"_{verb}")
    assert "alice requests Guest: already decided." in page
    assert events_by(root.user) == [] and row.state == "open"


@pytest.mark.parametrize("verb", ["approve", "decline"])
def test_a_decision_without_its_event_is_undone(
    root: AdminBrowser, monkeypatch: Any, verb: str
) -> None:
    def broken(*_args: Any, **_kwargs: Any) -> None:
        raise ZeroDivisionError

    row = ask(account("alice"))
    monkeypatch.setattr("accounts.admin.access_requests.record", broken)
    with pytest.raises(ZeroDivisionError):
        root.run(AccessRequest, verb, row)
    assert state_of(row) == "open" and not RoleAssignment.objects.exists()


def test_a_decided_request_is_read_only(root: AdminBrowser) -> None:
    row = ask(account("alice"))
    request: Any = type("Request", (), {"user": root.user})()
    assert PAGE.get_fields(request, row)[-2:] == ("given_until", "answer")
    assert PAGE.has_change_permission(request, row)
    row.decline(actor=root.user)
    assert not PAGE.has_change_permission(request, row)
    assert PAGE.get_fields(request, row)[-4:] == PAGE.decision_fields
    fields = PAGE.get_readonly_fields(request, row)
    assert set(PAGE.request_fields) | {"decided_by", "decided_at"} == set(fields)
    path = row_url(AccessRequest, row)
    assert root.open(path).page.status_code == 200
    assert root.post(path, _approve="1").status_code == 403


def test_the_form_starts_with_the_requested_end() -> None:
    row = ask(account("alice"), until=NOW + DAY)
    assert DecisionForm(instance=row).initial["given_until"] == NOW + DAY
    row.state = "approved"
    row.given_until = NOW
    assert DecisionForm(instance=row).initial["given_until"] == NOW


def test_a_button_approves_for_a_time(root: AdminBrowser, frozen: datetime) -> None:
    """Instead of the end that was asked for."""
    row = ask(account("alice"), until=NOW + 30 * DAY)
    assert "Approve for 2 days" in root.open(row_url(AccessRequest, row)).page.text
    root.post(row_url(AccessRequest, row), _approve_for="2d", answer="")
    assert state_of(row) == "approved" and row.given_until == NOW + 2 * DAY
    assert RoleAssignment.objects.get(user=row.user).expires_at == NOW + 2 * DAY


def test_a_duration_is_within_ones_own_rights(rita: AdminBrowser) -> None:
    RoleAssignment.objects.filter(user=rita.user).update(expires_at=NOW + DAY)
    row = ask(account("alice"))
    page = rita.post(row_url(AccessRequest, row), _approve_for="2d", answer="")
    assert "ends on" in page.text and state_of(row) == "open"
