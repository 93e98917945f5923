"""Notifications are written with their cause, once, and in limited number."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from accounts.audit.record import record
from accounts.models import AuditEvent, Delivery
from accounts.models.notifications import outbox
from accounts.models.notifications.outbox import notify
from tests.support.notification_rows import channel_row, delivery_row

pytestmark = pytest.mark.django_db


class Cancelled(Exception):
    pass


def test_an_event_and_its_notification_are_one_transaction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A failure between the two leaves neither."""
    channel_row()

    def fails(*args: Any, **kwargs: Any) -> None:
        raise Cancelled

    monkeypatch.setattr(outbox, "has_room", fails)
    with pytest.raises(Cancelled):
        record("user.locked_out", object="alice")
    assert not AuditEvent.objects.filter(action="user.locked_out").exists()
    assert not Delivery.objects.exists()


def test_a_change_that_is_rolled_back_sends_nothing() -> None:
    channel_row()
    with pytest.raises(Cancelled), transaction.atomic():
        record("token.replayed", object="refresh token of alice")
        assert Delivery.objects.count() == 1
        raise Cancelled
    assert not Delivery.objects.exists()


def test_a_notification_names_the_event_and_nothing_secret() -> None:
    channel = channel_row()
    event = record(
        "user.locked_out",
        object="alice",
        denied="attempts",
        address="192.0.2.7",
        request_id="r1",
        token_id="of-a-token",
        changes={"password": [None, "hidden"]},
    )
    row = Delivery.objects.get()
    assert (row.channel, row.kind, row.state) == (channel, "user.locked_out", "waiting")
    assert row.payload == {
        "at": event.at.isoformat(),
        "object": "alice",
        "reason": "attempts",
        "address": "192.0.2.7",
        "request_id": "r1",
        "event_id": event.pk,
    }


def test_other_events_notify_nobody(django_assert_num_queries: Any) -> None:
    channel_row()
    with django_assert_num_queries(1):
        record("user.signed_in", object="alice")
    assert not Delivery.objects.exists()


def test_each_channel_gets_its_own_delivery() -> None:
    channels = {channel_row().pk, channel_row("slack").pk}
    channel_row("slack", events=["role.ending"])
    before = timezone.now()
    assert notify("check.failed", {"object": "x"}) == 2
    for row in Delivery.objects.all():
        at = datetime.fromisoformat(row.payload.pop("at"))
        assert before <= at <= timezone.now() and row.payload == {"object": "x"}
    assert set(Delivery.objects.values_list("channel_id", flat=True)) == channels
    assert len(set(Delivery.objects.values_list("message_id", flat=True))) == 2


def test_an_occasion_is_notified_once_for_each_channel() -> None:
    channel_row()
    added = [notify("role.ending", {}, occasion="7 2030-01-01") for _ in range(2)]
    assert added == [1, 0]
    assert Delivery.objects.count() == 1
    channel_row()
    notify("role.ending", {}, occasion="7 2030-01-01")
    notify("role.ending", {}, occasion="8 2030-01-01")
    assert Delivery.objects.count() == 4


def test_the_same_occasion_in_two_processes_is_sent_once() -> None:
    """The constraint decides, because both may look before either has written."""
    channel = channel_row()
    rows = [Delivery(channel=channel, kind="k", occasion="o") for _ in range(2)]
    for row in rows:
        Delivery.objects.bulk_create([row], ignore_conflicts=True)
    assert Delivery.objects.count() == 1


@pytest.mark.parametrize("limit", ["MOST_WAITING", "MOST_IN_AN_HOUR"])
def test_a_flood_is_cut(
    limit: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An attacker who locks out a thousand names must not send a thousand mails."""
    monkeypatch.setattr(outbox, limit, 3)
    channel = channel_row(name="Team")
    if limit == "MOST_WAITING":
        delivery_row(channel, kind="role.ending")
        delivery_row(channel, kind="role.ending")
        delivery_row(channel, kind="role.ending", state="delivered")
    else:  # of another kind, of another channel, and of an earlier hour
        before = timezone.now() - timedelta(hours=1)
        delivery_row(channel, kind="role.ending")
        delivery_row(channel_row(events=[]), kind="user.locked_out")
        delivery_row(channel, kind="user.locked_out", created_at=before)
    known = Delivery.objects.count()
    for number in range(5):
        record("user.locked_out", object=f"name {number}")
    sent = Delivery.objects.count() - known
    assert sent == (1 if limit == "MOST_WAITING" else 3)
    assert AuditEvent.objects.filter(action="user.locked_out").count() == 5
    assert "Channel Team is full" in caplog.text


def test_workers_are_woken_after_the_commit(
    django_capture_on_commit_callbacks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[str] = []

    def fails() -> None:
        woken.append("now")
        raise Cancelled("robust: the change is committed already")

    monkeypatch.setattr(outbox, "_listeners", [fails])
    channel_row()
    with django_capture_on_commit_callbacks(execute=True):
        notify("check.failed", {})
        assert woken == []
    assert woken == ["now"]
