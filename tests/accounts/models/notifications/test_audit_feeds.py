"""The cursor of a channel in the sealed audit: batches, leases, repetitions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import AuditEvent, AuditFeed, AuditSeal, NotificationChannel
from accounts.models.notifications import audit_feeds
from tests.support.database_prompt import raw_events
from tests.support.notification_rows import channel_row

pytestmark = pytest.mark.django_db


def sealed(count: int) -> list[int]:
    """Ids of new events that are sealed."""
    rows = [AuditEvent(action="tool.called", object=f"n{n}") for n in range(count)]
    for row in rows:
        row.save()
    AuditSeal.objects.all().seal()
    return [row.pk for row in rows]


def feeds() -> Any:
    return AuditFeed.objects.all()


def claimed() -> AuditFeed:
    found: AuditFeed | None = feeds().claim()
    assert found is not None
    return found


@pytest.fixture
def channel() -> Any:
    """A channel that follows the audit from now on."""
    sealed(1)
    row = channel_row(events=["audit.events"])
    feeds().follow_channels()
    return row


def test_only_signed_webhooks_that_ask_get_a_feed() -> None:
    channel_row("slack", events=["audit.events"])
    channel_row(events=["role.ending"])
    assert feeds().follow_channels() == 0 and not feeds().exists()
    row = channel_row(events=["audit.events"])
    assert feeds().follow_channels() == 1 and feeds().get().channel == row
    assert feeds().follow_channels() == 1, "one feed goes on"
    NotificationChannel.objects.filter(pk=row.pk).update(events=["role.ending"])
    assert feeds().follow_channels() == 0 and not feeds().exists()


def test_a_feed_begins_with_what_is_sealed_later(channel: Any) -> None:
    assert feeds().claim() is None
    keys = sealed(3)
    AuditEvent(action="tool.called", object="not sealed").save()
    assert [event.pk for event in claimed().events()] == keys


def test_batches_follow_each_other(
    channel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_feeds, "BATCH", 2)
    keys, seen = sealed(5), []
    while (feed := feeds().claim()) is not None:
        seen.append([event.pk for event in feed.events()])
        feed.delivered("HTTP 200")
    assert seen == [keys[:2], keys[2:4], keys[4:]]


def test_a_repetition_is_the_same_batch(channel: Any) -> None:
    keys = sealed(2)
    first = claimed()
    assert feeds().claim() is None, "one batch at a time"
    first.failed("HTTP 500")
    sealed(2)
    assert feeds().claim() is None, "not before its time"
    feeds().update(next_attempt_at=timezone.now())
    again = claimed()
    assert again.message_id == first.message_id and again.attempts == 2
    assert [event.pk for event in again.events()] == keys


def test_a_killed_attempt_is_repeated(channel: Any) -> None:
    sealed(1)
    killed = claimed()
    feeds().update(leased_until=timezone.now() - timedelta(seconds=1))
    other = claimed()
    assert other.message_id == killed.message_id
    other.delivered("HTTP 200")
    killed.failed("too late")
    stored = feeds().get()
    assert (stored.result, stored.until) == ("HTTP 200", None)


def test_a_disabled_channel_waits(channel: Any) -> None:
    keys = sealed(2)
    NotificationChannel.objects.update(enabled=False)
    assert feeds().claim() is None
    NotificationChannel.objects.update(enabled=True)
    assert [event.pk for event in claimed().events()] == keys


def test_the_pause_is_bounded(channel: Any) -> None:
    sealed(1)
    feed = claimed()
    assert not feeds().failing(), "its first attempt runs"
    feed.attempts = 10_000
    feed.failed("HTTP 500")
    pause = feeds().get().next_attempt_at - timezone.now()
    assert timedelta(minutes=14) < pause <= timedelta(minutes=15)
    assert [row.result for row in feeds().failing()] == ["HTTP 500"]
    NotificationChannel.objects.update(enabled=False)
    assert not feeds().failing(), "nobody waits for it"


def test_purged_events_are_missed(channel: Any, settings: Any) -> None:
    keys = sealed(2)
    AuditSeal.objects.update(purged_at=timezone.now())
    raw_events(pk__in=keys)._raw_delete("default")
    feed = claimed()
    assert feed.missed and feed.until == keys[-1] and not feed.events()
    feed.delivered("HTTP 200")
    sealed(1)
    assert not claimed().missed


def test_two_processes_begin_one_feed(monkeypatch: pytest.MonkeyPatch) -> None:
    row = channel_row(events=["audit.events"])

    def meanwhile() -> int:
        AuditFeed.objects.get_or_create(channel=row, defaults={"cursor": 5})
        return 9

    monkeypatch.setattr(audit_feeds, "sealed_until", meanwhile)
    assert feeds().follow_channels() == 1
    assert feeds().get().cursor == 5


def test_the_feed_that_waited_longest_is_first_and_begins_anew(channel: Any) -> None:
    other = channel_row(events=["audit.events"])
    feeds().follow_channels()
    sealed(1)
    now = timezone.now()
    for row, ago in ((channel, 60), (other, 90)):
        at = now - timedelta(seconds=ago)
        feeds().filter(channel=row).update(next_attempt_at=at)
    first = claimed()
    assert first.channel == other and first.attempts == 1
    first.failed("HTTP 500")
    feeds().filter(pk=first.pk).update(next_attempt_at=now - timedelta(seconds=99))
    again = claimed()
    assert again.pk == first.pk and again.attempts == 2
    again.delivered("HTTP 200")
    again.refresh_from_db()
    assert (again.attempts, again.until, again.result) == (0, None, "HTTP 200")
    assert again.delivered_at is not None and again.leased_until is None
