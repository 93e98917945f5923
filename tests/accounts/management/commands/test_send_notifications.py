"""`manage.py send_notifications`: what is due, and again what failed."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from accounts.management.commands import send_notifications
from accounts.models import AuditEvent, Delivery
from tests.support.notification_rows import channel_row, delivery_row
from tests.support.webhook_receiver import receiving

pytestmark = pytest.mark.django_db


def sent(*options: str) -> dict[str, Any]:
    out = io.StringIO()
    call_command("send_notifications", "--no-look", "--json", *options, stdout=out)
    counts: dict[str, Any] = json.loads(out.getvalue())
    return counts


def test_it_sends_what_is_due_once() -> None:
    with receiving(200, 500) as receiver:
        channel = channel_row(url=receiver.url, events=["role.ending"])
        delivery_row(channel)
        delivery_row(channel)
        first, second = sent(), sent()
    assert (first["delivered"], first["not_delivered"]) == (1, 1)
    assert (second["delivered"], second["not_delivered"]) == (0, 0)
    assert second["waiting"] == 1 and len(receiver.got) == 2


def test_it_sends_again_what_failed() -> None:
    with receiving() as receiver:
        channel = channel_row(url=receiver.url, events=["role.ending"])
        row = delivery_row(channel, state="failed", attempts=8)
        delivery_row(channel, state="delivered")
        Delivery.objects.update(next_attempt_at=None)
        assert sent()["delivered"] == 0
        assert sent("--retry-failed")["delivered"] == len(receiver.got) == 1
    row.refresh_from_db()
    assert row.state == "delivered" and row.attempts == 1
    event = AuditEvent.objects.get(action="notification.resent")
    assert event.at <= timezone.now() and event.object.startswith(row.kind)


def test_it_says_what_it_did() -> None:
    out = io.StringIO()
    call_command("send_notifications", stdout=out)
    assert out.getvalue().startswith("0 delivered, 0 not delivered")


def test_occasions_are_looked_for_unless_told_not_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(send_notifications, "look_around", lambda: 3)
    assert sent()["added"] == 0
    out = io.StringIO()
    call_command("send_notifications", "--json", stdout=out)
    assert json.loads(out.getvalue())["added"] == 3


def test_batches_of_the_audit_are_tried_until_none_is_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    due = [True, True, False]
    monkeypatch.setattr(send_notifications, "send_audit_batch", lambda: due.pop(0))
    assert sent()["audit_batches"] == 2 and due == []
