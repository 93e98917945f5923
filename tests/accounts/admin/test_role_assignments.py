"""Role assignments in the admin: grant, extend, end, withdraw."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone

from accounts.admin import role_assignments as module
from accounts.admin.role_assignments import EndFilter, GrantForm
from accounts.http.relative_times import exact
from accounts.models import Role, RoleAssignment, User
from tests.support.admin_browser import (
    AdminBrowser,
    add_token,
    events_by,
    is_live,
    newest_event,
    row_url,
    staff_member,
)
from tests.support.users import account

pytestmark = pytest.mark.django_db
PAGE: Any = admin.site.get_model_admin(RoleAssignment)
ADD = "/admin/accounts/roleassignment/add/"
NOW = timezone.now().replace(microsecond=0)
DAY = timedelta(days=1)


@pytest.fixture
def rita() -> AdminBrowser:
    """A role manager with the role Guest."""
    verbs = ("view", "add", "change", "delete")
    needed = [f"{verb}_roleassignment" for verb in verbs]
    return AdminBrowser(staff_member("rita", *needed, roles=("Guest",)))


@pytest.fixture
def frozen(monkeypatch: Any) -> datetime:
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    return NOW


def key_of(role: str) -> str:
    return str(Role.objects.get(name=role).pk)


def grant(user: User, role: str = "Guest", **more: Any) -> RoleAssignment:
    return RoleAssignment.objects.grant(user, Role.objects.get(name=role), **more)[0]


def two_fields(end: datetime) -> dict[str, str]:
    """The inputs of a date and a time."""
    local = timezone.localtime(end)
    return {"expires_at_0": f"{local:%Y-%m-%d}", "expires_at_1": f"{local:%H:%M:%S}"}


def test_a_role_is_granted_until_its_end(root: AdminBrowser) -> None:
    account("alice")
    end = NOW + 3 * DAY
    fields = {"user": "alice", "role": key_of("User"), "reason": "stands in"}
    root.save(ADD, **fields, **two_fields(end))
    given = RoleAssignment.objects.get()
    assert (given.user.username, given.role.name) == ("alice", "User")
    assert (given.expires_at, given.granted_by) == (end, root.user)
    event = newest_event("role.granted")
    assert (event.actor, event.object) == ("root", "alice has User")
    assert event.changes["reason"] == [None, "stands in"]


def test_an_unknown_user_is_named_in_the_form(root: AdminBrowser) -> None:
    text = root.refused_save(ADD, user="nobody", role=key_of("User"))
    assert "There is no such user. Check the username." in text
    text = root.refused_save(ADD, user="root", role="")
    assert "This field is required." in text


@pytest.mark.parametrize(
    ("user", "role", "days", "text"),
    [
        ("bert", "User", None, "You do not have User.Read, User.Write yourself"),
        ("bert", "Admin", None, "Only superusers can grant or remove administrative"),
        ("rita", "Guest", None, "You cannot change your own roles"),
        ("carol", "Guest", None, "Only superusers can change the roles of a superuser"),
        ("bert", "Guest", 3, "Choose an earlier end date"),
        ("bert", "Guest", None, "Choose an earlier end date"),
    ],
)
def test_nobody_grants_more_than_they_have(
    rita: AdminBrowser, user: str, role: str, days: int | None, text: str
) -> None:
    account("bert")
    account("carol", is_superuser=True)
    RoleAssignment.objects.filter(user=rita.user).update(expires_at=NOW + 2 * DAY)
    end = two_fields(NOW + days * DAY) if days else {}
    assert text in rita.refused_save(ADD, user=user, role=key_of(role), **end)
    assert RoleAssignment.objects.exclude(user=rita.user).count() == 0
    assert events_by(rita.user) == []


def test_what_one_has_may_be_granted(rita: AdminBrowser) -> None:
    account("bert")
    RoleAssignment.objects.filter(user=rita.user).update(expires_at=NOW + 2 * DAY)
    fields = {"user": "bert", "role": key_of("Guest")}
    rita.save(ADD, **fields, **two_fields(NOW + DAY))
    assert RoleAssignment.objects.get(user__username="bert").granted_by == rita.user


def test_user_and_role_of_an_assignment_stay(root: AdminBrowser) -> None:
    row = grant(account("alice"))
    account("bob")
    root.save(row_url(RoleAssignment, row), user="bob", role=key_of("User"), reason="r")
    row.refresh_from_db()
    assert (row.user.username, row.role.name) == ("alice", "Guest")
    assert PAGE.get_readonly_fields(None, None) == ("granted_by", "granted_at")
    assert newest_event("role.extended").changes == {"reason": ["", "r"]}


def test_the_form_checks_a_new_end_of_an_existing_assignment(
    rita: AdminBrowser,
) -> None:
    RoleAssignment.objects.filter(user=rita.user).update(expires_at=NOW + 2 * DAY)
    row = grant(account("bert"), expires_at=NOW + DAY)
    path = row_url(RoleAssignment, row)
    text = rita.refused_save(path, **two_fields(NOW + 3 * DAY))
    assert "Choose an earlier end date" in text
    rita.save(path, **two_fields(NOW + 2 * DAY - timedelta(hours=1)))
    row.refresh_from_db()
    assert row.expires_at == NOW + 2 * DAY - timedelta(hours=1)


def test_an_unchanged_form_keeps_the_grantor(root: AdminBrowser) -> None:
    """It is also accepted if the actor could not grant the role again."""
    row = grant(account("alice"), reason="from provider corp")
    root.save(row_url(RoleAssignment, row))
    row.refresh_from_db()
    assert row.granted_by is None and events_by(root.user) == []
    root.save(row_url(RoleAssignment, row), reason="mine")
    row.refresh_from_db()
    assert row.granted_by == root.user


def test_an_unchanged_form_is_accepted_from_whoever_may_withdraw(
    rita: AdminBrowser,
) -> None:
    """rita could not grant it without an end, and does not."""
    RoleAssignment.objects.filter(user=rita.user).update(expires_at=NOW + 2 * DAY)
    row = grant(account("bert"))
    path = row_url(RoleAssignment, row)
    rita.save(path)
    assert "Choose an earlier end date" in rita.refused_save(path, reason="r")
    assert events_by(rita.user) == []


def test_an_incomplete_form_has_no_role_or_user() -> None:
    form = GrantForm({}, instance=RoleAssignment())
    form.actor = account("rita")
    assert not form.is_valid() and set(form.errors) == {"user", "role"}
    assert form.instance_value("role") is None
    given = RoleAssignment(user=form.actor, role=Role.objects.get(name="User"))
    bound = GrantForm({}, instance=given)
    assert bound.instance_value("role").name == "User"


@pytest.mark.parametrize(
    ("action", "by"),
    [("extend_day", DAY), ("extend_week", 7 * DAY), ("extend_month", 30 * DAY)],
)
def test_dated_roles_are_extended(
    root: AdminBrowser, frozen: datetime, action: str, by: timedelta
) -> None:
    """From their end, or from now if that has passed; without an end they stay."""
    alice, bob = account("alice"), account("bob")
    dated = grant(alice, expires_at=frozen + DAY, reason="stands in")
    past = grant(alice, "User", expires_at=frozen - DAY)
    open_end, other = grant(bob), grant(bob, "User", expires_at=frozen + DAY)
    page = root.run(RoleAssignment, action, dated, past, open_end)
    assert "2 roles extended." in page
    ends = {
        row.pk: row.expires_at for row in RoleAssignment.objects.order_by("pk").all()
    }
    assert ends == {
        dated.pk: frozen + DAY + by,
        past.pk: frozen + by,
        open_end.pk: None,
        other.pk: frozen + DAY,
    }
    assert sorted(events_by(root.user)) == [
        ("role.extended", "alice has Guest", "stands in"),
        ("role.extended", "alice has User", ""),
    ]
    event = [
        e for e in [newest_event("role.extended")] if e.object == "alice has Guest"
    ]
    for found in event:
        assert found.changes == {
            "expires_at": [str(frozen + DAY), str(frozen + DAY + by)]
        }


def test_roles_are_extended_no_longer_than_ones_own(
    rita: AdminBrowser, frozen: datetime
) -> None:
    """The new end counts, not the present one; past ends count from now."""
    RoleAssignment.objects.filter(user=rita.user).update(expires_at=frozen + 8 * DAY)
    bert, ben, past = (account(name) for name in ("bert", "ben", "past"))
    near = grant(bert, expires_at=frozen + DAY)
    far = grant(ben, expires_at=frozen + DAY + timedelta(seconds=1))
    old = grant(past, expires_at=frozen - 29 * DAY)
    page = rita.run(RoleAssignment, "extend_week", near, far, old)
    assert "ben has Guest: Your own access to the scopes of Guest ends on" in page
    assert "bert has Guest:" not in page and "2 roles extended." in page
    ends = dict(RoleAssignment.objects.values_list("user__username", "expires_at"))
    assert ends == {
        "rita": frozen + 8 * DAY,
        "bert": frozen + 8 * DAY,
        "ben": frozen + DAY + timedelta(seconds=1),
        "past": frozen + 7 * DAY,
    }
    RoleAssignment.objects.filter(pk=old.pk).update(expires_at=frozen - 29 * DAY)
    page = rita.run(RoleAssignment, "extend_month", old)
    assert "past has Guest: Your own access" in page


def test_roles_are_ended_now(root: AdminBrowser, frozen: datetime) -> None:
    alice, bob = account("alice"), account("bob")
    ended, other = grant(alice, reason="for May"), grant(bob)
    past = grant(bob, "User", expires_at=frozen - DAY)
    hers, his = add_token(alice), add_token(bob)
    assert "1 role ended." in root.run(RoleAssignment, "end_now", ended, past)
    for row, end in ((ended, frozen), (other, None), (past, frozen - DAY)):
        row.refresh_from_db()
        assert row.expires_at == end
    assert not is_live(hers) and is_live(his)
    assert events_by(root.user) == [
        ("role.ended", "alice has Guest", "for May"),
        ("token.revoked", "access token of alice", "role ended"),
    ]


def test_ending_ones_own_last_role_keeps_this_browser(root: AdminBrowser) -> None:
    row = grant(root.user)
    root.run(RoleAssignment, "end_now", row)
    assert root.still_signed_in()


@pytest.mark.parametrize("way", ["form", "action"])
def test_a_withdrawn_role_ends_access(root: AdminBrowser, way: str) -> None:
    alice, bob = account("alice"), account("bob")
    row, other = grant(alice, reason="for May"), grant(bob)
    grant(root.user)
    token, his = add_token(alice), add_token(bob)
    if way == "form":
        root.delete(RoleAssignment, row)
    else:
        root.run(RoleAssignment, "delete_selected", row)
    held = RoleAssignment.objects.values_list("user__username", flat=True)
    assert set(held) == {"bob", "root"} and other in RoleAssignment.objects.all()
    assert not is_live(token) and is_live(his)
    assert events_by(root.user) == [
        ("role.withdrawn", "alice has Guest", "for May"),
        ("token.revoked", "access token of alice", "role withdrawn"),
    ]
    root.delete(RoleAssignment, RoleAssignment.objects.get(user=root.user))
    assert root.still_signed_in()


@pytest.mark.parametrize("action", ["end_now", "delete_selected"])
def test_roles_beyond_ones_own_stay(rita: AdminBrowser, action: str) -> None:
    paul = grant(account("paul"), "User")
    before = list(RoleAssignment.objects.order_by("pk").values())
    page = rita.run(RoleAssignment, action, paul)
    assert list(RoleAssignment.objects.order_by("pk").values()) == before
    if action == "end_now":
        assert "paul has User: You do not have User.Read" in page
        assert "0 roles ended." in page


ENDS = {
    "past": -timedelta(seconds=1),
    "now": timedelta(0),
    "next": timedelta(seconds=1),
    "week": 7 * DAY,
    "later": 7 * DAY + timedelta(seconds=1),
}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("for_good", "forever"),
        ("dated", "later next week"),
        ("soon", "next week"),
        ("expired", "now past"),
        ("odd", "forever later next now past week"),
        ("", "forever later next now past week"),
    ],
)
def test_assignments_are_filtered_by_their_end(
    frozen: datetime, choice: str, expected: str
) -> None:
    grant(account("forever"))
    for name, end in ENDS.items():
        grant(account(name), expires_at=frozen + end)
    chosen = {"end": [choice]} if choice else {}
    narrow = EndFilter(HttpRequest(), chosen, RoleAssignment, PAGE)
    rows = narrow.queryset(None, RoleAssignment.objects.all())
    assert sorted(row.user.username for row in rows) == expected.split()


def test_the_filter_offers_every_choice() -> None:
    offered = [
        key
        for key, _label in EndFilter(HttpRequest(), {}, RoleAssignment, PAGE).lookups(
            None, PAGE
        )
    ]
    assert offered == ["for_good", "dated", "soon", "expired"]


@pytest.mark.parametrize(
    ("name", "mark"),
    [
        ("past", "expired"),
        ("now", "expired"),
        ("next", "ends soon"),
        ("week", "ends soon"),
        ("later", ""),
    ],
)
def test_the_list_marks_ends_that_are_near(
    frozen: datetime, name: str, mark: str
) -> None:
    end = frozen + ENDS[name]
    shown = PAGE.end(RoleAssignment(expires_at=end))
    assert exact(end) in shown
    assert re.findall(r"<span[^>]*>(.*?)</span>", shown) == ([mark] if mark else [])
    assert PAGE.end(RoleAssignment(expires_at=None)) == "no end date"
    assert module.SOON == 7 * DAY


def test_a_date_without_a_time_is_the_end_of_that_day(root: AdminBrowser) -> None:
    account("alice")
    fields = {"user": "alice", "role": key_of("User"), "expires_at_0": "2038-12-31"}
    root.save(ADD, **fields)
    given = RoleAssignment.objects.get()
    assert given.expires_at is not None
    local = timezone.localtime(given.expires_at)
    assert f"{local:%Y-%m-%d %H:%M:%S}" == "2038-12-31 23:59:59"
    text = root.refused_save(ADD, **{**fields, "expires_at_0": "9999-12-31"})
    assert "This date is too late." in text
