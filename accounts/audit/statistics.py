"""Statistics of a time span, from hourly counts and events of the current hour."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from operator import attrgetter

from django.db.models import Q
from django.utils import timezone

from accounts.models import AuditHour, IssuedToken
from accounts.models.audit.rollups import (
    HOUR,
    SETTLING_TIME,
    STEPS,
    AuditHourQuerySet,
    EventCounts,
    Facet,
    count_events,
    floor_hour,
)

SIGNED_IN, SIGN_IN_FAILED = "user.signed_in", "user.sign_in_failed"
ISSUED, REVOKED = "token.issued", "token.revoked"
CHART_ACTIONS = (SIGNED_IN, SIGN_IN_FAILED, ISSUED, REVOKED)
MOST_LIVE = 10_000
"""Active tokens that the overview counts at most, like the list of tokens."""
ROLL_UP_SECONDS = 0.3
"""Seconds a page may spend on counting finished hours."""
TOP_LENGTH = 8
TOP_CANDIDATES = 200
"""Names taken from the hourly counts before the current hour is added."""


@dataclass(frozen=True, slots=True)
class Span:
    """A time range of equal slots that ends with the current hour."""

    key: str
    slots: int
    hours: int
    """Length of one slot in hours."""

    def boundaries(self, now: datetime) -> list[datetime]:
        """Return the start of each slot and the end of the last, which contains `now`.

        Slots follow the reader's clock: days begin at midnight, also when the clock is
        changed, and hours at its full hour, also in zones such as Asia/Kathmandu.
        """
        local = timezone.localtime(now)
        if self.hours == 1:
            end = now - (local - floor_hour(local)) + HOUR
            return [end - HOUR * n for n in range(self.slots, -1, -1)]
        hour = local.hour - local.hour % self.hours
        latest = local.replace(
            hour=hour, minute=0, second=0, microsecond=0, tzinfo=None
        )
        before = [HOUR * self.hours * n for n in range(self.slots - 1, -2, -1)]
        return [at_clock(latest - ago, local.tzinfo) for ago in before]


def at_clock(wall: datetime, zone: tzinfo | None) -> datetime:
    """Return the moment (UTC) of this time of a clock."""
    return wall.replace(tzinfo=zone).astimezone(UTC)


SPANS = {
    span.key: span
    for span in (Span("24h", 24, 1), Span("7d", 28, 6), Span("30d", 30, 24))
}


@dataclass
class Slot:
    """Counts from `start` to before `end`: one bar of a chart."""

    start: datetime
    end: datetime
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, facet: str, allowed: int, denied: int) -> None:
        """Add the totals of an hour: allowed tool calls, failed ones, all denials."""
        if facet == Facet.MESSAGES:
            self.counts["refusals"] += denied
        elif facet == Facet.CALLS:
            self.counts.update(calls=allowed, succeeded=allowed)
        else:
            self.counts.update(failed=allowed)
            self.counts["succeeded"] -= allowed


@dataclass(frozen=True, slots=True)
class Top:
    """A name with its numbers of allowed and denied messages."""

    name: str
    allowed: int
    denied: int

    @property
    def total(self) -> int:
        return self.allowed + self.denied


@dataclass
class Statistics:
    """The statistics that the dashboard shows for one span."""

    span: Span
    slots: list[Slot]
    uncounted: int
    """Number of finished hours that are not counted yet and missing here."""
    live_tokens: int
    tops: dict[str, list[Top]]
    durations: Counter[int]

    def total(self, name: str) -> int:
        """Return the sum of one count over all slots."""
        return sum(slot.counts[name] for slot in self.slots)

    @property
    def error_rate(self) -> float | None:
        """Return the share of allowed tool calls that failed; None without calls."""
        calls = self.total("calls")
        return self.total("failed") / calls if calls else None

    def percentile(self, share: float) -> float | None:
        """Return the duration in ms that `share` of the allowed messages stay under."""
        target, total = share * sum(self.durations.values()), 0
        for bucket in sorted(self.durations):
            total += self.durations[bucket]
            if total >= target:
                return math.exp((bucket + 0.5) / STEPS)
        return None


def gather_statistics(span: Span, now: datetime) -> Statistics:
    """Count finished hours and add the current one, in a bounded number of queries."""
    hours = AuditHour.objects.all()
    uncounted = hours.roll_up(now, seconds=ROLL_UP_SECONDS)
    bounds = span.boundaries(now)
    slots = [Slot(start, end) for start, end in pairwise(bounds)]
    first_open = floor_hour(now - SETTLING_TIME)
    past = hours.filter(hour__gte=bounds[0], hour__lt=first_open)
    counted = fill_slots(slots, past)
    current = [count_events(hour, hour + HOUR) for hour in hours_from(first_open, now)]
    for hour, counts in zip(hours_from(first_open, now), current, strict=True):
        add_counts(slot_of(slots, hour), counts)
    split_hours(slots, {*counted, *hours_from(first_open, now)})
    return Statistics(
        span=span,
        slots=slots,
        uncounted=uncounted,
        live_tokens=live_tokens(now),
        tops={f: top_values(f, past, current) for f in TOP_FACETS},
        durations=durations(past, current),
    )


def hours_from(start: datetime, now: datetime) -> list[datetime]:
    """Return the hours that are not final: one, or two just after the full hour."""
    return [start + HOUR * n for n in range(int((now - start) / HOUR) + 1)]


def fill_slots(slots: list[Slot], past: AuditHourQuerySet) -> set[datetime]:
    """Add each hour to the slot in which it begins; return the counted hours."""
    counted: set[datetime] = set()
    totals = (Facet.MESSAGES, Facet.CALLS, Facet.ERRORS)
    facets = Q(facet__in=totals) | Q(facet=Facet.ACTION, value__in=CHART_ACTIONS)
    for row in past.filter(facets):
        slot = slot_of(slots, row.hour)
        counted.add(row.hour)
        if row.facet == Facet.ACTION:
            slot.counts[row.value] += row.allowed + row.denied
        else:
            slot.add(row.facet, row.allowed, row.denied)
    return counted


def slot_of(slots: list[Slot], moment: datetime) -> Slot:
    """Return the slot that contains `moment`, which must be in the span."""
    later = bisect_right(slots, moment, key=attrgetter("start"))
    return slots[max(later - 1, 0)]


def add_counts(slot: Slot, counts: EventCounts, sign: int = 1) -> None:
    """Add counts of events to a slot, or subtract them."""
    for facet in (Facet.MESSAGES, Facet.CALLS, Facet.ERRORS):
        verdicts = counts[facet]
        slot.add(facet, sign * verdicts["allowed"][""], sign * verdicts["denied"][""])
    actions = counts[Facet.ACTION]
    for name in CHART_ACTIONS:
        total = actions["allowed"][name] + actions["denied"][name]
        slot.counts[name] += sign * total


def split_hours(slots: list[Slot], counted: set[datetime]) -> None:
    """Move the end of each hour in which a slot begins to that slot.

    Counts are hours of UTC; in zones such as Asia/Kathmandu a day begins within one.
    The first slot's hour is not counted before.
    """
    for before, slot in zip([None, *slots], slots, strict=False):
        hour = floor_hour(slot.start)
        if hour == slot.start or (before is not None and hour not in counted):
            continue
        counts = count_events(slot.start, hour + HOUR, durations=False)
        add_counts(slot, counts)
        if before is not None:
            add_counts(before, counts, -1)
            # An event that was written late is not in the hour's count.
            before.counts = +before.counts


TOP_FACETS = (Facet.OBJECT, Facet.ACTOR, Facet.CLIENT, Facet.REASON)


def top_values(
    facet: str, past: AuditHourQuerySet, current: list[EventCounts]
) -> list[Top]:
    """Return the TOP_LENGTH most frequent values of a facet."""
    allowed: Counter[str] = Counter()
    denied: Counter[str] = Counter()
    for value, a, d in past.filter(facet=facet).value_totals(TOP_CANDIDATES):
        allowed[value] += a
        denied[value] += d
    for counts in current:
        allowed.update(counts[facet]["allowed"])
        denied.update(counts[facet]["denied"])
    names = (allowed + denied).most_common(TOP_LENGTH)
    return [Top(name, allowed[name], denied[name]) for name, _number in names]


def durations(past: AuditHourQuerySet, current: list[EventCounts]) -> Counter[int]:
    """Return duration bucket -> number of allowed messages."""
    buckets: Counter[int] = Counter()
    for value, a, _d in past.filter(facet=Facet.DURATION).value_totals():
        buckets[int(value)] += a
    for counts in current:
        for value, number in counts[Facet.DURATION]["allowed"].items():
            buckets[int(value)] += number
    return buckets


def live_tokens(now: datetime) -> int:
    """Count tokens that are neither expired nor revoked, up to MOST_LIVE + 1.

    Counting a million takes seconds. The newest come first: few of them have ended.
    """
    return IssuedToken.objects.live(now).order_by("-pk")[: MOST_LIVE + 1].count()
