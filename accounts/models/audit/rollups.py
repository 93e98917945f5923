"""AuditHour: hourly counts of audit events, so that a month needs few rows.

Finished hours are counted once; the current hour is counted for each page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from time import perf_counter

from django.db import models
from django.db.models import Count, F, FloatField, Max, Min, Sum
from django.db.models.functions import Cast, Floor, Greatest, Ln
from django.utils.translation import gettext_lazy as _

from accounts.models.audit.events import AuditEvent
from accounts.models.batches import Progress, delete_in_batches, unreported

HOUR = timedelta(hours=1)
RETENTION = timedelta(days=31)
SETTLING_TIME = timedelta(minutes=2)
"""An hour is final this long after its end, because events are written late."""
MAX_VALUES = 100
"""Values stored per hour and facet. With more of them in one hour, the sums of rare
values are too low."""
HOURS_PER_TRANSACTION = 4
"""A small number, so that a page does not delay writers."""
STEPS = 10.0
"""Durations are stored as floor(STEPS * ln(ms)): the error is below 5 %."""


class Facet(models.TextChoices):
    MESSAGES = "messages", _("messages decided")
    ACTION = "action", _("events by action")
    OBJECT = "object", _("messages by target")
    CALLS = "calls", _("tool calls")
    ERRORS = "errors", _("failed tool calls")
    ACTOR = "actor", _("tool calls and denials by user")
    CLIENT = "client", _("tool calls and denials by client")
    REASON = "reason", _("denials by reason")
    DURATION = "duration", _("allowed messages by duration")


CAPPED_FACETS = (Facet.OBJECT, Facet.ACTOR, Facet.CLIENT)
GROUP_COLUMNS = (
    "action",
    "decision",
    "reason",
    "object",
    "actor",
    "client_id",
    "outcome",
)
EventCounts = dict[str, dict[str, "Counter[str]"]]
"""Facet -> "allowed" or "denied" -> value -> count."""


def empty_counts() -> EventCounts:
    return {facet: {"allowed": Counter(), "denied": Counter()} for facet in Facet}


def count_events(
    start: datetime, end: datetime, *, durations: bool = True
) -> EventCounts:
    """Count the events from `start` to before `end`, in two queries.

    `durations` costs the second one.
    """
    counts = empty_counts()
    events = AuditEvent.objects.filter(at__gte=start, at__lt=end).order_by()
    rows = events.values_list(*GROUP_COLUMNS)
    counted = rows.annotate(n=Count("pk"), t=Count("duration_ms"))
    for *row, number, timed in counted.iterator():
        _add(counts, dict(zip(GROUP_COLUMNS, row, strict=True)), number, timed)
    if not durations:
        return counts
    step = Ln(Greatest(F("duration_ms"), 0.01, output_field=FloatField())) * STEPS
    timed = events.filter(decision="allowed", duration_ms__isnull=False)
    buckets = timed.values_list(Cast(Floor(step), models.IntegerField()))
    for bucket, number in buckets.annotate(n=Count("pk")):
        counts[Facet.DURATION]["allowed"][str(bucket)] += number
    return counts


def _add(counts: EventCounts, row: dict[str, str], number: int, timed: int) -> None:
    """Add one combination; only decided messages have a duration (`timed`)."""
    verdict = "denied" if row["decision"] == "denied" else "allowed"
    counts[Facet.ACTION][verdict][row["action"]] += number
    if not timed:
        return
    counts[Facet.MESSAGES][verdict][""] += timed
    if row["action"].startswith("tool."):
        counts[Facet.CALLS][verdict][""] += timed
        if row["outcome"] == "error":
            counts[Facet.ERRORS][verdict][""] += timed
    if row["action"].startswith("tool.") or verdict == "denied":
        for facet, column in ((Facet.ACTOR, "actor"), (Facet.CLIENT, "client_id")):
            if row[column]:
                counts[facet][verdict][row[column]] += timed
    if verdict == "denied":
        counts[Facet.REASON][verdict][row["reason"]] += timed
    if not row["action"].startswith(("message.", "request.")):
        counts[Facet.OBJECT][verdict][row["object"]] += timed


def limit_values(facet: str, counts: dict[str, Counter[str]]) -> list[str]:
    """Return the values to store: at most MAX_VALUES of a capped facet.

    MESSAGES always has one row, which marks the hour as counted.
    """
    if facet == Facet.MESSAGES:
        return [""]
    total = counts["allowed"] + counts["denied"]
    names = total.most_common(MAX_VALUES if facet in CAPPED_FACETS else None)
    return [name for name, _number in names]


def floor_hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


class AuditHourQuerySet(models.QuerySet["AuditHour"]):
    def uncounted_hours(self, now: datetime) -> list[datetime]:
        """Return finished hours without counts, the newest first."""
        end = floor_hour(now - SETTLING_TIME)
        first = AuditEvent.objects.aggregate(first=Min("at"))["first"]
        if first is None:
            return []
        start = max(floor_hour(first), floor_hour(now - RETENTION))
        done = self.filter(facet=Facet.MESSAGES, hour__gte=start)
        counted = set(done.values_list("hour", flat=True))
        hours = (start + HOUR * n for n in range((end - start) // HOUR))
        return sorted((h for h in hours if h not in counted), reverse=True)

    def roll_up(self, now: datetime, seconds: float | None = None) -> int:
        """Count finished hours for at most `seconds`; return how many are left."""
        waiting, start = self.uncounted_hours(now), perf_counter()
        while waiting and (seconds is None or perf_counter() - start < seconds):
            rows = self._empty_hours(waiting)
            size = len(rows) or HOURS_PER_TRANSACTION
            if not rows:
                rows = [r for hour in waiting[:size] for r in self._hour_rows(hour)]
            waiting = waiting[size:]
            self.bulk_create(rows, ignore_conflicts=True, batch_size=500)
        return len(waiting)

    roll_up.queryset_only = True  # type: ignore[attr-defined]
    roll_up.alters_data = True  # type: ignore[attr-defined]

    def _empty_hours(self, waiting: list[datetime]) -> list[AuditHour]:
        """Return rows for the newest of these hours that have no events."""
        before = AuditEvent.objects.filter(at__lt=waiting[0] + HOUR)
        last = before.aggregate(last=Max("at"))["last"]
        return [
            AuditHour(hour=hour, facet=Facet.MESSAGES, allowed=0, denied=0)
            for hour in waiting
            if last is None or hour > last
        ]

    def _hour_rows(self, hour: datetime) -> Iterator[AuditHour]:
        counts = count_events(hour, hour + HOUR)
        for facet, verdicts in counts.items():
            for value in limit_values(facet, verdicts):
                allowed, denied = (verdicts[v][value] for v in ("allowed", "denied"))
                yield AuditHour(
                    hour=hour, facet=facet, value=value, allowed=allowed, denied=denied
                )

    def value_totals(self, most: int | None = None) -> list[tuple[str, int, int]]:
        """Return (value, allowed, denied) sums, the `most` frequent values first."""
        rows = self.values_list("value").annotate(a=Sum("allowed"), d=Sum("denied"))
        return list(rows.order_by(-(F("a") + F("d")), "value")[:most])

    def purge(self, now: datetime, progress: Progress = unreported) -> int:
        """Delete hours that are older than every page's range."""
        return delete_in_batches(self.filter(hour__lt=now - RETENTION), "pk", progress)

    purge.queryset_only = True  # type: ignore[attr-defined]
    purge.alters_data = True  # type: ignore[attr-defined]


class AuditHour(models.Model):
    """The count of one facet value in one hour. Only the events are evidence."""

    hour = models.DateTimeField()
    facet = models.CharField(max_length=8, choices=Facet)
    value = models.CharField(max_length=255, blank=True)
    allowed = models.PositiveIntegerField()
    denied = models.PositiveIntegerField()

    objects = AuditHourQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=("facet", "hour", "value"), name="one_row_per_hour_and_value"
            )
        ]

    def __str__(self) -> str:
        return f"{self.facet} {self.value} {self.hour:%Y-%m-%d %H}"
