"""Delivery: one notification for one channel, from its cause until it has arrived.

The table is an outbox: a row is written in the transaction of the change that causes
it. Workers claim rows with a lease and send them outside any transaction.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from django.db import connection, models, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.models.batches import Progress, delete_in_batches, unreported
from accounts.models.notifications.channels import NotificationChannel
from accounts.models.notifications.kinds import kind_named

LEASE = timedelta(seconds=60)
"""A claim without a result expires after this: its process was killed."""
MOST_ATTEMPTS = 8
FIRST_DELAY, LONGEST_DELAY = 30.0, 6 * 3600.0
"""Seconds until the second attempt, and at most between two."""
KEPT = timedelta(days=90)
"""`purge` deletes older deliveries. Longer than ROLE_ENDING_NOTICE can be."""


class DeliveryState(models.TextChoices):
    WAITING = "waiting", _("waiting")
    DELIVERED = "delivered", _("delivered")
    FAILED = "failed", _("failed")


def new_message_id() -> str:
    return f"msg_{uuid4().hex}"


def delay_after(attempts: int) -> timedelta:
    """The wait after this many failed attempts: 30 s, 2 min, 8 min ... 6 h.

    With a random part, so that many do not return together.
    """
    seconds = min(FIRST_DELAY * 4 ** (attempts - 1), LONGEST_DELAY)
    return timedelta(seconds=seconds * random.uniform(0.8, 1.2))  # noqa: S311


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    def due(self, now: datetime) -> DeliveryQuerySet:
        """What may be sent now. A channel sends one at a time.

        A slow receiver occupies one thread then, not all of them.
        """
        rows = self.filter(state=DeliveryState.WAITING, next_attempt_at__lte=now)
        rows = rows.filter(Q(leased_until=None) | Q(leased_until__lte=now))
        busy = self.model.objects.filter(
            state=DeliveryState.WAITING, leased_until__gt=now
        )
        rows = rows.filter(channel__enabled=True)
        return rows.exclude(channel__in=busy.values("channel"))

    def claim(self) -> Delivery | None:
        """Lease the next delivery that is due; None if there is none.

        PostgreSQL skips rows that another process is claiming. SQLite has one writer.
        """
        now = timezone.now()
        if not self.due(now).exists():
            return None
        skip = connection.features.has_select_for_update_skip_locked
        with transaction.atomic():
            rows = self.due(now).order_by("next_attempt_at", "pk")
            found = rows.select_for_update(skip_locked=skip, of=("self",)).first()
            if found is not None:
                found.lease(now)
        return found

    def purge(self, now: datetime, progress: Progress = unreported) -> int:
        """Delete deliveries older than KEPT; return their number."""
        old = self.filter(created_at__lt=now - KEPT)
        return delete_in_batches(old, "created_at", progress)

    def last_attempts(self) -> list[Delivery]:
        """The last attempted delivery of each enabled channel."""
        channels = NotificationChannel.objects.filter(enabled=True)
        tried = self.exclude(attempted_at=None).order_by("-attempted_at", "-pk")
        rows = [tried.filter(channel=channel).first() for channel in channels]
        return [row for row in rows if row is not None]

    claim.queryset_only = claim.alters_data = True  # type: ignore[attr-defined]
    purge.queryset_only = purge.alters_data = True  # type: ignore[attr-defined]


class Delivery(models.Model):
    """A notification on its way to a channel, with its last result."""

    channel = models.ForeignKey(
        NotificationChannel,
        on_delete=models.CASCADE,
        related_name="deliveries",
        verbose_name=_("channel"),
    )
    message_id = models.CharField(
        _("message ID"),
        max_length=40,
        unique=True,
        default=new_message_id,
        help_text=_("Each attempt has the same ID, so receivers can drop repetitions."),
    )
    kind = models.CharField(_("event"), max_length=64)
    occasion = models.CharField(max_length=128, null=True, editable=False)
    """Names an occasion that several processes may notice; it is sent once."""
    payload = models.JSONField(_("content"), default=dict)
    created_at = models.DateTimeField(
        _("created at"), default=timezone.now, db_index=True
    )
    state = models.CharField(
        _("state"),
        max_length=9,
        choices=DeliveryState,
        default=DeliveryState.WAITING,
    )
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    next_attempt_at = models.DateTimeField(
        _("next attempt"), default=timezone.now, null=True
    )
    leased_until = models.DateTimeField(null=True, editable=False)
    attempted_at = models.DateTimeField(_("last attempt"), null=True)
    result = models.CharField(_("last result"), max_length=200, blank=True)
    delivered_at = models.DateTimeField(_("delivered at"), null=True)

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-id")
        verbose_name = _("delivery")
        verbose_name_plural = _("deliveries")
        constraints = [
            models.UniqueConstraint(
                fields=("channel", "occasion"), name="one_delivery_per_occasion"
            )
        ]
        indexes = [
            models.Index(
                fields=["next_attempt_at"],
                condition=Q(state="waiting"),
                name="delivery_waiting",
            ),
            models.Index(fields=["channel", "-attempted_at"], name="delivery_attempts"),
        ]

    def __str__(self) -> str:
        return f"{kind_named(self.kind).label}, {self.message_id[-6:]}"

    def lease(self, now: datetime) -> None:
        """Claim it and count the attempt, also one that a kill will cut short."""
        self.leased_until, self.attempted_at = now + LEASE, now
        self.attempts += 1
        self.save(update_fields=["leased_until", "attempted_at", "attempts"])

    def attempts_now(self) -> None:
        """Save a new row that its caller sends itself."""
        now = timezone.now()
        self.attempts, self.attempted_at, self.leased_until = 1, now, now + LEASE
        self.save(force_insert=True)

    def delivered(self, result: str) -> None:
        now = timezone.now()
        self._finish(result, state=DeliveryState.DELIVERED, delivered_at=now)

    def failed(self, result: str) -> None:
        """Try again later, or give up after MOST_ATTEMPTS."""
        if self.attempts >= MOST_ATTEMPTS:
            self._finish(result, state=DeliveryState.FAILED, next_attempt_at=None)
            return
        later = timezone.now() + delay_after(self.attempts)
        self._finish(result, next_attempt_at=later)

    def send_again(self) -> None:
        """Make it due now, with all attempts."""
        self._finish(
            "",
            state=DeliveryState.WAITING,
            attempts=0,
            next_attempt_at=timezone.now(),
            delivered_at=None,
        )

    def _finish(self, result: str, **values: Any) -> None:
        values |= {"result": result[:200], "leased_until": None}
        if values.get("state") == DeliveryState.DELIVERED:
            values["next_attempt_at"] = None
        for name, value in values.items():
            setattr(self, name, value)
        # Not `save`: a channel that was deleted meanwhile took the row with it.
        Delivery.objects.filter(pk=self.pk).update(**values)
