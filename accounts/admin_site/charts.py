"""Charts as numbers: the templates draw inline SVG without style and script (CSP)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from accounts.audit.statistics import Slot

WIDTH, HEIGHT = 720, 132
MOST_STEPS = 4
"""Grid lines above the base line."""
HALF_DAY = timedelta(hours=12)
"""Longer slots are days, also the one of 23 hours when the clock is changed."""
TICK_HOURS, TICK_DAYS = 6, 5
GAP = 0.2
"""Share of the bar's slot that stays empty."""


@dataclass(frozen=True, slots=True)
class Series:
    """One count to draw: key in a slot, name, CSS class, audit log filter."""

    key: str
    name: Any
    look: str
    query: dict[str, str]


@dataclass(frozen=True, slots=True)
class Rate:
    """A share to name beside the counts: sum of keys in `of` by that in `among`."""

    name: Any
    of: tuple[str, ...]
    among: tuple[str, ...]

    def text(self, counts: Mapping[str, int]) -> str:
        whole = sum(counts[key] for key in self.among)
        return percent(sum(counts[key] for key in self.of) / whole if whole else None)


@dataclass(frozen=True, slots=True)
class Part:
    x: float
    y: float
    width: float
    height: float
    look: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One slot: label, URL, description, and each series' count with its URL.

    `tick` is the text below the bar, empty for most bars.
    """

    label: str
    url: str
    description: str
    cells: list[tuple[int, str]]
    parts: list[Part]
    tick: str = ""
    rate: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars for the SVG, with the same numbers for a table."""

    slug: str
    title: Any
    series: Sequence[Series]
    bars: list[Bar]
    highest: int
    scale: list[int]
    """Values of the grid lines from the top to 0, at equal distances."""
    rate: Rate | None = None
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def grid(self) -> list[float]:
        """Heights (y) of the grid lines."""
        steps = len(self.scale) - 1
        return [round(HEIGHT * n / steps, 2) for n in range(steps + 1)]

    @property
    def keys(self) -> list[tuple[Series, int]]:
        """The series with their totals."""
        totals = [sum(bar.cells[n][0] for bar in self.bars) for n in self.places]
        return list(zip(self.series, totals, strict=True))

    @property
    def places(self) -> range:
        return range(len(self.series))

    @property
    def first(self) -> str:
        return self.bars[0].label

    @property
    def last(self) -> str:
        return self.bars[-1].label


Link = Callable[[Slot, dict[str, str]], str]
"""URL of the audit log for one slot and one series' filter."""


def chart(
    slug: str,
    title: Any,
    series: Sequence[Series],
    slots: list[Slot],
    link: Link,
    rate: Rate | None = None,
) -> Chart:
    """Stacked bars, one for each slot."""
    sums = [sum(slot.counts[s.key] for s in series) for slot in slots]
    highest = max([1, *sums])
    scale, step = scale_to(highest), WIDTH / len(slots)
    bars = [
        bar(slot, series, link, rate, tick, index * step, step, HEIGHT / scale[0])
        for index, (slot, tick) in enumerate(zip(slots, ticks(slots), strict=True))
    ]
    return Chart(slug, title, series, bars, highest, scale, rate)


def scale_to(highest: int) -> list[int]:
    """Multiples of 1, 2 or 5 times a power of ten, from above `highest` to 0."""
    steps = (factor * 10**power for power in count() for factor in (1, 2, 5))
    step = next(step for step in steps if highest <= step * MOST_STEPS)
    return list(range(math.ceil(highest / step) * step, -1, -step))


def bar(
    slot: Slot,
    series: Sequence[Series],
    link: Link,
    rate: Rate | None,
    tick: str,
    x: float,
    step: float,
    scale: float,
) -> Bar:
    """One slot's parts, stacked from the bottom."""
    parts, level = [], float(HEIGHT)
    for one in series:
        height = round(slot.counts[one.key] * scale, 2)
        level -= height
        left, width = round(x + step * GAP / 2, 2), round(step * (1 - GAP), 2)
        if height:
            parts.append(Part(left, round(level, 2), width, height, one.look))
    counts = [slot.counts[one.key] for one in series]
    urls = [link(slot, one.query) for one in series]
    cells = list(zip(counts, urls, strict=True))
    share = rate.text(slot.counts) if rate else ""
    words = description(series, counts, rate, share)
    label = slot_label(slot)
    url = link(slot, {})
    return Bar(label, url, f"{label}: {words}", cells, parts, tick, share)


def description(
    series: Sequence[Series], counts: list[int], rate: Rate | None, share: str
) -> str:
    """The numbers of a bar in words."""
    words = [f"{s.name}: {n:,}" for n, s in zip(counts, series, strict=True)]
    return ", ".join([*words, f"{rate.name}: {share}"] if rate else words)


def percent(share: float | None) -> str:
    """A share as text; "< 0.1 %" for few errors among many calls."""
    if share is None:
        return "-"
    return "< 0.1 %" if 0 < share < 0.001 else f"{share:.1%}".replace("%", " %")


def is_daily(slot: Slot) -> bool:
    return slot.end - slot.start > HALF_DAY


def ticks(slots: list[Slot]) -> list[str]:
    """Texts below the bars, empty for most: every sixth hour or fifth day, midnights.

    The last bars have none, where it would stick out.
    """
    last = len(slots) - len(slots) // 12
    texts = [tick_below(slot, index) for index, slot in enumerate(slots)]
    return [text if n < last else "" for n, text in enumerate(texts)]


def tick_below(slot: Slot, index: int) -> str:
    """The text below one bar, by the reader's clock."""
    start = timezone.localtime(slot.start)
    if is_daily(slot):
        return "" if index % TICK_DAYS else date_format(start, _("j M"))
    if start.hour == 0:
        return date_format(start, _("j M"))
    hourly = slot.end - slot.start <= timedelta(hours=1)
    return f"{start:%H:%M}" if hourly and start.hour % TICK_HOURS == 0 else ""


def slot_label(slot: Slot) -> str:
    """Start of the slot: day and month, with the time for slots under a day."""
    start = timezone.localtime(slot.start)
    return date_format(start, _("j M") if is_daily(slot) else _("j M H:i"))
