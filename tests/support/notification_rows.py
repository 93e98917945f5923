"""Channels and deliveries for tests."""

from __future__ import annotations

from itertools import count
from typing import Any

from accounts.models import Delivery, NotificationChannel
from accounts.models.notifications.kinds import AUDIT, KINDS

NUMBERS = count(1)


def channel_row(kind: str = "webhook", url: str = "", **columns: Any) -> Any:
    """An enabled channel for every kind of notification."""
    events = [name for name in KINDS if name != AUDIT.name]
    given = {"name": f"Channel {next(NUMBERS)}", "events": events, **columns}
    row = NotificationChannel(kind=kind, **given)
    if kind == "webhook":
        row.renew_secret()
    if kind != "mail":
        row.set_url(url or "https://hooks.example/x")
    row.save()
    return row


def delivery_row(channel: Any, **columns: Any) -> Delivery:
    data = {"object": "alice requests Admin", "reason": "work"}
    given = {"kind": "access.requested", "payload": data, **columns}
    row: Delivery = Delivery.objects.create(channel=channel, **given)
    return row
