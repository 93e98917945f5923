"""Deliveries: claimed by one worker, retried later, kept for a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from accounts.models import Delivery, NotificationChannel
from accounts.models.notifications.deliveries import (
    KEPT,
    LEASE,
    MOST_ATTEMPTS,
    delay_after,
)
from tests.support.accounts import stop_clock
from tests.support.notification_rows import channel_row, delivery_row

SECOND = timedelta(seconds=1)


@pytest.mark.django_db
def test_a_claim_leases_and_counts() -> None:
    row = delivery_row(channel_row())
    claimed = Delivery.objects.all().claim()
    assert claimed is not None and claimed.pk == row.pk
    assert claimed.attempts == 1 and claimed.attempted_at is not None
    row.refresh_from_db()
    stored = (row.attempts, row.attempted_at, row.leased_until)
    assert stored == (1, claimed.attempted_at, claimed.attempted_at + LEASE)
    assert Delivery.objects.all().claim() is None


@pytest.mark.django_db
def test_a_killed_process_loses_its_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    now = stop_clock(monkeypatch)
    delivery_row(channel_row(), next_attempt_at=now)
    first = Delivery.objects.all().claim()
    stop_clock(monkeypatch, now + LEASE - SECOND)
    assert Delivery.objects.all().claim() is None
    stop_clock(monkeypatch, now + LEASE)
    again = Delivery.objects.all().claim()
    assert first is not None and again is not None
    assert (again.pk, again.attempts) == (first.pk, 2)


@pytest.mark.django_db
def test_a_channel_sends_one_at_a_time() -> None:
    """A slow receiver keeps no thread from the others."""
    slow, quick = channel_row(), channel_row()
    for channel in (slow, slow, quick):
        delivery_row(channel)
    claims = [Delivery.objects.all().claim() for _ in range(3)]
    assert [row.channel if row else None for row in claims] == [slow, quick, None]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "columns",
    [
        {"state": "delivered"},
        {"state": "failed"},
        {"next_attempt_at": timezone.now() + timedelta(days=1)},
    ],
)
def test_only_what_is_due_is_claimed(columns: dict[str, Any]) -> None:
    delivery_row(channel_row(), **columns)
    assert Delivery.objects.all().claim() is None


@pytest.mark.django_db
def test_a_disabled_channel_sends_nothing() -> None:
    delivery_row(channel_row(enabled=False))
    assert Delivery.objects.all().claim() is None


@pytest.mark.django_db
def test_failures_are_retried_later_and_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = stop_clock(monkeypatch)
    row = delivery_row(channel_row(), next_attempt_at=now)
    waits = []
    for number in range(1, MOST_ATTEMPTS + 1):
        claimed = Delivery.objects.all().claim()
        assert claimed is not None and claimed.attempts == number
        claimed.failed("HTTP 500")
        row.refresh_from_db()
        if row.next_attempt_at is not None:
            waits.append((row.next_attempt_at - now).total_seconds())
            now = stop_clock(monkeypatch, row.next_attempt_at)
    assert (row.state, row.result, row.leased_until) == ("failed", "HTTP 500", None)
    assert Delivery.objects.all().claim() is None
    planned = [30, 120, 480, 1920, 7680, 21600, 21600]
    assert len(waits) == len(planned)
    for wait, plan in zip(waits, planned, strict=True):
        assert 0.79 * plan < wait < 1.21 * plan


def test_the_delay_has_a_random_part() -> None:
    assert len({delay_after(3) for _ in range(5)}) > 1


@pytest.mark.django_db
def test_a_success_ends_it() -> None:
    delivery_row(channel_row())
    row = Delivery.objects.all().claim()
    assert row is not None
    row.delivered("HTTP 200")
    row.refresh_from_db()
    assert (row.state, row.result) == ("delivered", "HTTP 200")
    assert row.delivered_at is not None
    assert (row.leased_until, row.next_attempt_at) == (None, None)


@pytest.mark.django_db
def test_a_deleted_channel_takes_its_deliveries() -> None:
    """Also the one that is being sent: its result is dropped."""
    channel = channel_row()
    delivery_row(channel)
    row = Delivery.objects.all().claim()
    channel.delete()
    assert row is not None
    row.failed("HTTP 500")
    assert not Delivery.objects.exists()


@pytest.mark.django_db
def test_purge_deletes_old_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    now = stop_clock(monkeypatch)
    channel = channel_row()
    delivery_row(channel, created_at=now - KEPT - SECOND)
    kept = delivery_row(channel, created_at=now - KEPT)
    assert Delivery.objects.all().purge(now) == 1
    assert Delivery.objects.get() == kept


@pytest.mark.django_db
def test_the_last_attempt_of_each_enabled_channel_is_found() -> None:
    now, one, other = timezone.now(), channel_row(), channel_row()
    delivery_row(one, attempted_at=now - SECOND, result="HTTP 500")
    last = delivery_row(one, attempted_at=now, result="HTTP 200")
    delivery_row(other)
    delivery_row(channel_row(enabled=False), attempted_at=now)
    assert Delivery.objects.all().last_attempts() == [last]


@pytest.fixture
def committed(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Other connections see the rows. Not a transactional test: it empties tables."""
    with django_db_blocker.unblock():
        yield
        NotificationChannel.objects.all().delete()


def test_two_workers_claim_no_delivery_twice(committed: None) -> None:
    """They run at the same time, each on its own connection."""
    rows = [delivery_row(channel_row()).pk for _ in range(12)]
    start, claimed = threading.Barrier(2), []

    def work() -> None:
        try:
            start.wait(10)
            while row := Delivery.objects.all().claim():
                claimed.append(row.pk)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(claimed) == sorted(rows)


@pytest.mark.django_db
def test_what_failed_is_sent_again_with_all_attempts() -> None:
    row = delivery_row(channel_row(), attempts=MOST_ATTEMPTS)
    row.failed("HTTP 500")
    assert (row.state, Delivery.objects.all().claim()) == ("failed", None)
    row.send_again()
    row.refresh_from_db()
    assert (row.state, row.attempts, row.result) == ("waiting", 0, "")
    found = Delivery.objects.all().claim()
    assert found == row and found.attempts == 1
    found.delivered("HTTP 204")
    found.send_again()
    found.refresh_from_db()
    assert (found.state, found.delivered_at) == ("waiting", None)


@pytest.mark.django_db
def test_a_delivery_is_named_by_its_kind_and_message() -> None:
    row = delivery_row(channel_row(), kind="user.locked_out", message_id="msg_1234567")
    assert str(row) == "Lock-outs, 234567"


@pytest.mark.django_db
def test_only_an_attempt_that_runs_occupies_its_channel() -> None:
    channel, now = channel_row(), timezone.now()
    delivery_row(channel, state="failed", leased_until=now + LEASE)
    delivery_row(channel, leased_until=now - SECOND, next_attempt_at=now + LEASE)
    row = delivery_row(channel)
    assert Delivery.objects.all().claim() == row


@pytest.mark.django_db
def test_what_its_caller_sends_nobody_else_claims(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until its lease ends, as after a kill."""
    now = stop_clock(monkeypatch)
    row = Delivery(channel=channel_row(), kind="test", next_attempt_at=now)
    row.attempts_now()
    row.refresh_from_db()
    assert (row.attempts, row.attempted_at) == (1, now)
    assert Delivery.objects.all().claim() is None
    stop_clock(monkeypatch, now + LEASE)
    assert Delivery.objects.all().claim() == row


@pytest.mark.django_db
def test_a_long_result_is_cut() -> None:
    row = delivery_row(channel_row())
    row.failed("x" * 201)
    row.refresh_from_db()
    assert row.result == "x" * 200
