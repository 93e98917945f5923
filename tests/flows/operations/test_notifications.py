"""Notifications over real HTTP: once, retried, and not lost when a server is killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from axes.models import AccessAttempt
from django.db.models import F
from django.utils import timezone

from accounts.models import Delivery, NotificationChannel
from accounts.models.notifications.deliveries import LEASE
from accounts.notifications.webhooks import signature
from accounts.notifications.worker import POLL
from tests.support.notification_rows import channel_row
from tests.support.server import Portico, running_server
from tests.support.waiting import wait_until
from tests.support.webhook_receiver import Receiver, receiving


@pytest.fixture
def receiver(rows: None) -> Iterator[Receiver]:
    """It refuses the first message; a channel sends lock-outs to it."""
    with receiving(500) as found:
        channel_row(url=found.url, events=["user.locked_out"])
        yield found
    NotificationChannel.objects.all().delete()
    AccessAttempt.objects.all().delete()


def lock_out(server: Portico, name: str) -> None:
    """One wrong password is enough on these servers."""
    body = {"username": name, "password": "wrong"}
    httpx2.post(f"{server.url}/api/token/", json=body)


def hurry() -> None:
    """Let a minute pass for what waits: for its next attempt, or for its lease."""
    now = timezone.now()
    waiting = Delivery.objects.filter(state="waiting")
    waiting.update(next_attempt_at=now, leased_until=F("leased_until") - LEASE)


@pytest.mark.spec("a notification survives a failed receiver and a killed server")
def test_each_lock_out_arrives_whatever_happens(
    receiver: Receiver, folder: Path
) -> None:
    settings = {"LOCKOUT_AFTER": "1"}
    with (
        running_server(folder, **settings) as one,
        running_server(folder, **settings) as two,
    ):
        lock_out(one, "first")
        wait_until(lambda: Delivery.objects.filter(result="HTTP 500").exists())
        hurry()
        wait_until(lambda: Delivery.objects.filter(state="delivered").exists())
        time.sleep(POLL * 1.3)
        assert len(receiver.got) == 2, "two servers sent the same message"
        receiver.pause = 3.0
        lock_out(one, "second")
        receiver.expect(3)
        for server in (one, two):
            server.stop(signal.SIGKILL)
    receiver.pause = 0.0
    hurry()
    with running_server(folder, **settings):
        wait_until(lambda: Delivery.objects.filter(state="delivered").count() == 2)
    assert receiver.ids[0] == receiver.ids[1] != receiver.ids[2] == receiver.ids[3]
    names = [body["data"]["object"] for body in receiver.bodies]
    assert names == ["first", "first", "second", "second"]
    secret = NotificationChannel.objects.get().secret
    for _path, headers, body in receiver.got:
        at = int(headers["webhook-timestamp"])
        expected = signature(secret, headers["webhook-id"], at, body)
        assert headers["webhook-signature"] == expected
