"""Roles that end soon, and failing checks, are found by a look from time to time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core import checks
from django.utils import timezone, translation
from django.utils.functional import lazy

from accounts.models import Delivery, FailingCheck, Role, RoleAssignment, User
from accounts.notifications import occasions
from accounts.notifications.occasions import (
    about,
    failing,
    look_around,
    notify_of_ending_roles,
)
from tests.support.model_rows import person
from tests.support.notification_rows import channel_row

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def a_week(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.ROLE_ENDING_NOTICE = 7 * DAY
    monkeypatch.setattr(occasions, "findings", list)


def role_until(days: float, *, given: float = 30, **user: Any) -> RoleAssignment:
    """A role that ends in this many days and was given that many ago."""
    now = timezone.now()
    name = f"person-{User.objects.count()}"
    row: RoleAssignment = RoleAssignment.objects.create(
        user=person(name, **user),
        role=Role.objects.get(name="User"),
        expires_at=now + days * DAY,
        granted_at=now - given * DAY,
    )
    return row


def test_a_role_that_ends_soon_is_notified_once() -> None:
    channel_row()
    row = role_until(6.9)
    assert look_around() == 1 and look_around() == 0
    data = Delivery.objects.get().payload
    assert data["object"] == f"{row.user} has User"
    assert data["assignment"] == f"roleassignment:{row.pk}", "the page of the row"
    assert data["until"].startswith(f"{timezone.localtime(row.expires_at):%Y-%m-%d}")


def test_a_role_that_was_extended_is_notified_again() -> None:
    channel_row()
    row = role_until(2)
    look_around()
    row.extend(DAY)
    assert look_around() == 1 and Delivery.objects.count() == 2


def test_a_new_channel_hears_of_it_too() -> None:
    channel_row()
    role_until(2)
    look_around()
    channel_row()
    look_around()
    assert Delivery.objects.count() == 2


@pytest.mark.parametrize(
    ("days", "given", "active"),
    [(7.1, 30, True), (-0.1, 30, True), (6, 0.5, True), (6, 30, False)],
    ids=["later", "over", "given for a shorter time", "not active"],
)
def test_other_ends_are_no_news(days: float, given: float, active: bool) -> None:
    channel_row()
    role_until(days, given=given, is_active=active)
    assert look_around() == 0


@pytest.mark.parametrize("off", ["setting", "channel"])
def test_nobody_is_notified_who_did_not_ask(
    settings: Any, off: str, django_assert_num_queries: Any
) -> None:
    """Nor are the roles read."""
    if off == "setting":
        settings.ROLE_ENDING_NOTICE = timedelta(0)
    channel_row(events=["role.ending"] if off == "setting" else ["access.requested"])
    role_until(2)
    with django_assert_num_queries(1):
        assert notify_of_ending_roles(timezone.now()) == 0


def test_many_ends_are_spread_over_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occasions, "MOST_IN_AN_HOUR", 2)
    channel_row()
    last, *first = [role_until(days) for days in (3, 1, 2)]
    assert look_around() == 2
    told = Delivery.objects.values_list("payload__object", flat=True)
    assert set(told) == {f"{row.user} has User" for row in first}
    assert [look_around(), look_around()] == [1, 0]
    assert f"{last.user} has User" in set(told.all())


def test_failing_checks_are_notified_with_their_fix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [
        checks.Error("Broken.", hint="Repair it.", id="portico.E999"),
        checks.Warning("Odd.", id="portico.W999"),
        checks.Warning("Odd, too.", id="portico.W999"),
        checks.Info("Nice.", id="portico.I999"),
    ]
    monkeypatch.setattr(occasions, "findings", lambda: found)
    channel_row()
    assert look_around() == 2 and look_around() == 0
    data = {row.payload["object"]: row.payload for row in Delivery.objects.all()}
    assert data["portico.E999"]["fix"] == "Repair it."
    assert data["portico.W999"]["problem"] == "Odd."
    found.clear()
    look_around()
    assert not FailingCheck.objects.exists()


def test_checks_run_only_if_a_channel_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occasions, "findings", lambda: pytest.fail("they ran"))
    channel_row(events=["role.ending"])
    assert look_around() == 0


def test_an_end_is_told_in_the_time_zone_of_the_installation(settings: Any) -> None:
    row = role_until(2)
    row.expires_at = datetime(2030, 1, 1, 20, 30, tzinfo=UTC)
    with timezone.override("Asia/Seoul"):
        assert about(row)["until"] == "2030-01-02 05:30 KST"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (checks.Error("x" * 501, hint="h", id="a"), {"a": ("x" * 500, "h")}),
        (checks.Warning("x" * 500), {"unnamed": ("x" * 500, "-")}),
        (checks.Critical("x", hint="", id="i" * 65), {"i" * 64: ("x", "-")}),
        (checks.Info("x", id="a"), {}),
    ],
    ids=["error", "unnamed", "long id", "info"],
)
def test_what_is_told_of_a_check_fits(
    monkeypatch: pytest.MonkeyPatch, message: Any, told: dict[str, tuple[str, str]]
) -> None:
    monkeypatch.setattr(occasions, "findings", lambda: [message])
    assert failing() == told


def test_notifications_are_in_english(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads a channel may speak another language than the process."""
    spoken = checks.Warning(lazy(translation.get_language, str)(), id="a")
    monkeypatch.setattr(occasions, "findings", lambda: [spoken])
    channel_row()
    with translation.override("ko"):
        assert look_around() == 1
    assert Delivery.objects.get().payload["problem"].startswith("en")
