"""AuditFeed: how far a channel has got with the events of the audit.

Nothing is queued: the feed is a cursor into the sealed events, whose order is final.
So a slow receiver costs no call anything, and its backlog is the audit itself, which
AUDIT_RETENTION bounds.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import connection, models, transaction
from django.db.models import Q
from django.utils import timezone

from accounts.models.audit.events import AuditEvent
from accounts.models.audit.seals import AuditSeal
from accounts.models.notifications.channels import ChannelKind, NotificationChannel
from accounts.models.notifications.deliveries import LEASE, delay_after
from accounts.models.notifications.kinds import AUDIT

BATCH = 200
"""Events of one message."""
LONGEST_PAUSE = timedelta(minutes=15)
"""Between two attempts; a feed never gives up, because later events must wait."""


class AuditFeedQuerySet(models.QuerySet["AuditFeed"]):
    def follow_channels(self) -> int:
        """Start and end feeds as the channels ask; return the number of feeds.

        A new feed begins with the events that are sealed from now on.
        """
        channels = NotificationChannel.objects.filter(kind=ChannelKind.WEBHOOK)
        wanted = {row.pk for row in channels if AUDIT.name in row.events}
        known = set(self.values_list("channel_id", flat=True))
        if known - wanted:
            self.filter(channel__in=known - wanted).delete()
        if wanted - known:
            cursor = sealed_until()
            rows = [self.model(channel_id=key, cursor=cursor) for key in wanted - known]
            self.bulk_create(rows, ignore_conflicts=True)
        return len(wanted)

    def due(self, now: datetime) -> AuditFeedQuerySet:
        """Feeds of enabled channels that may send now and have something to send."""
        free = Q(leased_until=None) | Q(leased_until__lte=now)
        rows = self.filter(free, channel__enabled=True, next_attempt_at__lte=now)
        return rows.filter(cursor__lt=sealed_until())

    def claim(self) -> AuditFeed | None:
        """Lease the feed that has waited longest; None if none is due."""
        now = timezone.now()
        if not self.due(now).exists():
            return None
        skip = connection.features.has_select_for_update_skip_locked
        with transaction.atomic():
            rows = self.due(now).order_by("next_attempt_at", "pk")
            rows = rows.select_related("channel")
            found = rows.select_for_update(skip_locked=skip, of=("self",)).first()
            if found is not None:
                found.lease(now)
        return found

    def failing(self) -> AuditFeedQuerySet:
        """Feeds of enabled channels whose last attempt failed."""
        rows = self.filter(channel__enabled=True, attempts__gt=0).exclude(result="")
        return rows.select_related("channel")

    claim.queryset_only = claim.alters_data = True  # type: ignore[attr-defined]
    follow_channels.queryset_only = True  # type: ignore[attr-defined]
    follow_channels.alters_data = True  # type: ignore[attr-defined]


def sealed_until() -> int:
    """The id of the newest sealed event; 0 before the first seal."""
    head = AuditSeal.objects.all().head()
    return head.last_id if head else 0


class AuditFeed(models.Model):
    """The feed of one channel; it sends one batch at a time, so in order."""

    channel = models.OneToOneField(
        NotificationChannel, on_delete=models.CASCADE, related_name="audit_feed"
    )
    cursor = models.BigIntegerField()
    """The id of the last event that has arrived."""
    until = models.BigIntegerField(null=True)
    """The last id of the batch that is being sent: a repetition has the same events."""
    missed = models.BooleanField(default=False)
    """Whether retention deleted events before this batch."""
    attempts = models.PositiveIntegerField(default=0)
    """Failed or unfinished attempts of this batch."""
    next_attempt_at = models.DateTimeField(default=timezone.now)
    leased_until = models.DateTimeField(null=True)
    result = models.CharField(max_length=200, blank=True)
    delivered_at = models.DateTimeField(null=True)

    objects = AuditFeedQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.channel}, {self.cursor}"

    @property
    def message_id(self) -> str:
        """The same for each attempt of a batch."""
        return f"audit_{self.channel.row_key}_{self.cursor}_{self.until}"

    def lease(self, now: datetime) -> None:
        """Choose the batch, unless one is repeated, and count the attempt."""
        if self.until is None:
            self.until = self.end_of_batch()
        self.missed = AuditSeal.objects.all().missed_since(self.cursor)
        self.leased_until, self.attempts = now + LEASE, self.attempts + 1
        names = ("until", "missed", "leased_until", "attempts")
        self.save(update_fields=names)

    def end_of_batch(self) -> int:
        end = sealed_until()
        rows = AuditEvent.objects.filter(id__gt=self.cursor, id__lte=end)
        keys = list(rows.order_by("id").values_list("id", flat=True)[:BATCH])
        return keys[-1] if len(keys) == BATCH else end

    def events(self) -> Any:
        """The events of the batch, in order."""
        rows = AuditEvent.objects.filter(id__gt=self.cursor, id__lte=self.until)
        return rows.order_by("id")

    def delivered(self, result: str) -> None:
        """Go on to the next batch."""
        now = timezone.now()
        self._store(
            result,
            cursor=self.until,
            until=None,
            attempts=0,
            next_attempt_at=now,
            delivered_at=now,
        )

    def failed(self, result: str) -> None:
        """Repeat the batch later."""
        pause = min(delay_after(min(self.attempts, 10)), LONGEST_PAUSE)
        self._store(result, next_attempt_at=timezone.now() + pause)

    def _store(self, result: str, **values: Any) -> None:
        """Only while this attempt holds the lease: a later one may have taken over."""
        mine = AuditFeed.objects.filter(pk=self.pk, leased_until=self.leased_until)
        mine.update(result=result[:200], leased_until=None, **values)
