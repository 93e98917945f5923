"""Writes notifications into the outbox, in the transaction of what causes them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from accounts.models.notifications.channels import NotificationChannel
from accounts.models.notifications.deliveries import Delivery, DeliveryState
from accounts.models.notifications.kinds import Data

logger = logging.getLogger(__name__)

MOST_WAITING = 1000
"""Deliveries that may wait for one channel; further ones are dropped and logged."""
MOST_IN_AN_HOUR = 60
"""Deliveries of one kind to one channel: nobody reads a thousand mails."""
SHOWN = ("actor", "object", "reason", "address", "client_id", "request_id", "subject")
"""Columns of an audit event that its notification shows."""

_listeners: list[Callable[[], None]] = []


def on_new_deliveries(wake: Callable[[], None]) -> None:
    """Call `wake` after each commit of new deliveries in this process."""
    _listeners.append(wake)


def wake_senders() -> None:
    for wake in _listeners:
        wake()


def notify(kind: str, data: Data, *, occasion: str | None = None) -> int:
    """Add a delivery for each channel that wants this kind; returns how many.

    Joins the caller's transaction. With an `occasion`, each channel gets it once,
    however often and in whatever process this is called.
    """
    channels = NotificationChannel.objects.all().interested_in(kind)
    if occasion is not None:
        known = Delivery.objects.filter(channel__in=channels, occasion=occasion)
        told = set(known.values_list("channel_id", flat=True))
        channels = [channel for channel in channels if channel.pk not in told]
    content = {"at": timezone.now().isoformat(), **data}
    rows = [
        Delivery(channel=channel, kind=kind, occasion=occasion, payload=content)
        for channel in channels
        if has_room(channel, kind)
    ]
    if not rows:
        return 0
    Delivery.objects.bulk_create(rows, ignore_conflicts=occasion is not None)
    transaction.on_commit(wake_senders, robust=True)
    return len(rows)


def has_room(channel: NotificationChannel, kind: str) -> bool:
    """Whether one more of this kind is sent; logs one that is not."""
    mine = Delivery.objects.filter(channel=channel)
    hour_ago = timezone.now() - timedelta(hours=1)
    recent = mine.filter(kind=kind, created_at__gt=hour_ago)
    waiting = mine.filter(state=DeliveryState.WAITING)
    full = waiting.count() >= MOST_WAITING or recent.count() >= MOST_IN_AN_HOUR
    if full:
        logger.warning("Channel %s is full; a %s is not sent", channel.name, kind)
    return not full


def notify_of_event(event: Any) -> None:
    """Notify of an audit event whose kind is in RECORDED."""
    shown = {name: getattr(event, name) for name in SHOWN}
    known = {name: value for name, value in shown.items() if value}
    known |= {"at": event.at.isoformat(), "event_id": event.pk}
    notify(event.action, known)
