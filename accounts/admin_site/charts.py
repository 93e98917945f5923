"""Charts as numbers: the templates draw inline SVG without style and script (CSP)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from accounts.audit.statistics import Slot

WIDTH, HEIGHT = 720, 132
HALF_DAY = timedelta(hours=12)
"""Longer slots are days, also the one of 23 hours when the clock is changed."""
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
class Part:
    x: float
    y: float
    width: float
    height: float
    look: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One slot: label, URL, description, and each series' count with its URL."""

    label: str
    url: str
    description: str
    cells: list[tuple[int, str]]
    parts: list[Part]


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars for the SVG, with the same numbers for a table."""

    slug: str
    title: Any
    series: Sequence[Series]
    bars: list[Bar]
    highest: int
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def first(self) -> str:
        return self.bars[0].label

    @property
    def last(self) -> str:
        return self.bars[-1].label


Link = Callable[[Slot, dict[str, str]], str]
"""URL of the audit log for one slot and one series' filter."""


def chart(
    slug: str, title: Any, series: Sequence[Series], slots: list[Slot], link: Link
) -> Chart:
    """Stacked bars, one for each slot."""
    sums = [sum(slot.counts[s.key] for s in series) for slot in slots]
    highest = max([1, *sums])
    step = WIDTH / len(slots)
    bars = [
        bar(slot, series, link, index * step, step, HEIGHT / highest)
        for index, slot in enumerate(slots)
    ]
    return Chart(slug, title, series, bars, highest)


def bar(
    slot: Slot,
    series: Sequence[Series],
    link: Link,
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
    description = ", ".join(
        f"{s.name}: {n}" for n, s in zip(counts, series, strict=True)
    )
    label = slot_label(slot)
    urls = [link(slot, one.query) for one in series]
    cells = list(zip(counts, urls, strict=True))
    return Bar(label, link(slot, {}), f"{label}: {description}", cells, parts)


def slot_label(slot: Slot) -> str:
    """Start of the slot: day and month, with the time for slots under a day."""
    start = timezone.localtime(slot.start)
    daily = slot.end - slot.start > HALF_DAY
    return date_format(start, _("j M") if daily else _("j M H:i"))
