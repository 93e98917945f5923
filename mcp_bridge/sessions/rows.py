"""The rows of open sessions: synchronous functions for `in_database`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Count
from django.utils import timezone

from accounts.models.batches import delete_in_batches
from mcp_bridge.models import ClientSession, SessionMessage

SPARE = 1.25
"""A row outlives the last use by SESSION_IDLE times this: uses are written late."""


def lifetime() -> timedelta:
    """How long a session lives after the use that its row has."""
    return timedelta(seconds=settings.SESSION_IDLE * SPARE)


def add_session(key: str, user_id: int, used: Mapping[str, float]) -> list[str]:
    """Add a session that lives from now on; return those that it ended.

    `used` has the last uses that this worker knows, as Unix times.
    """
    now = timezone.now()
    ended = surplus(user_id, now, used)
    with transaction.atomic():
        if ended:
            ClientSession.objects.all().end(ended)
        ClientSession.objects.create(
            pk=key, user_id=user_id, expires_at=now + lifetime()
        )
    return ended


def surplus(user_id: int, now: datetime, used: Mapping[str, float]) -> list[str]:
    """The sessions that must end before this user may open one more."""
    live = ClientSession.objects.all().live(now)
    mine = live.filter(user_id=user_id)
    count = mine.count()
    if count >= settings.MAX_SESSIONS_PER_USER:
        return oldest(dict(mine.values_list("pk", "expires_at")), used)[
            : count + 1 - settings.MAX_SESSIONS_PER_USER
        ]
    if live.count() < settings.MAX_SESSIONS:
        return []
    most = live.values("user_id").annotate(rows=Count("pk")).order_by("-rows")[0]
    theirs = live.filter(user_id=most["user_id"])
    return oldest(dict(theirs.values_list("pk", "expires_at")), used)[:1]


def oldest(expiring: Mapping[str, datetime], used: Mapping[str, float]) -> list[str]:
    """The keys, the least recently used first."""
    written = {key: (at - lifetime()).timestamp() for key, at in expiring.items()}
    return sorted(written, key=lambda key: max(written[key], used.get(key, 0.0)))


def expiry(key: str) -> float:
    """When the session expires if it is not used, as Unix time; 0: it has ended."""
    row = ClientSession.objects.filter(pk=key).values_list("expires_at").first()
    return row[0].timestamp() if row is not None else 0.0


def extend_sessions(keys: Iterable[str], used_at: float) -> None:
    """Write that these sessions were used then."""
    until = datetime.fromtimestamp(used_at, UTC) + lifetime()
    ClientSession.objects.all().extend(keys, until)


def end_row(key: str) -> None:
    """End the session for every worker."""
    ClientSession.objects.all().end([key])


def delete_expired() -> None:
    """Delete sessions and messages that have expired."""
    now = timezone.now()
    for model in (ClientSession, SessionMessage):
        expired = model._default_manager.filter(expires_at__lt=now)
        delete_in_batches(expired, "expires_at")
