"""Charts: every bar's place, height, text and links."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from accounts.admin_site.charts import (
    HEIGHT,
    WIDTH,
    Part,
    Rate,
    Series,
    chart,
    scale_to,
    slot_label,
)
from accounts.audit.statistics import Slot

pytestmark = pytest.mark.once
START = datetime(2026, 5, 10, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
SERIES = [Series("a", "good", "", {"x": "1"}), Series("b", "wrong", "bad", {"x": "2"})]


def slots(*counts: tuple[int, int]) -> list[Slot]:
    return [
        Slot(START + HOUR * n, START + HOUR * (n + 1), Counter(a=a, b=b))
        for n, (a, b) in enumerate(counts)
    ]


def link(slot: Slot, query: dict[str, str]) -> str:
    return f"/{slot.start:%H}/{query.get('x', '')}"


def drawn(*counts: tuple[int, int]) -> Any:
    return chart("slug", "Title", SERIES, slots(*counts), link)


def test_bars_are_stacked_from_the_bottom() -> None:
    found = drawn((3, 1), (0, 2))
    assert found.highest == 4
    step = WIDTH / 2
    left, width, scale = step * 0.1, step * 0.8, HEIGHT / 4
    assert found.bars[0].parts == [
        Part(x=left, y=HEIGHT - 3 * scale, width=width, height=3 * scale, look=""),
        Part(x=left, y=0, width=width, height=scale, look="bad"),
    ]
    assert found.bars[1].parts == [
        Part(
            x=left + step,
            y=HEIGHT - 2 * scale,
            width=width,
            height=2 * scale,
            look="bad",
        )
    ]


def test_a_bar_names_its_numbers_and_links_to_them() -> None:
    first, second = drawn((3, 1), (0, 2)).bars
    assert first.description == "10 May 12:00: good: 3, wrong: 1"
    assert (first.url, first.cells) == ("/12/", [(3, "/12/1"), (1, "/12/2")])
    assert (second.url, second.cells) == ("/13/", [(0, "/13/1"), (2, "/13/2")])


def test_an_empty_chart_has_no_parts() -> None:
    found = drawn((0, 0), (0, 0))
    assert found.highest == 1 and [bar.parts for bar in found.bars] == [[], []]
    assert (found.first, found.last) == ("10 May 12:00", "10 May 13:00")
    assert (found.slug, found.title, found.series) == ("slug", "Title", SERIES)


@pytest.mark.parametrize(
    ("hours", "label"), [(1, "10 May 12:00"), (6, "10 May 12:00"), (24, "10 May")]
)
def test_slots_under_a_day_have_a_time(hours: int, label: str) -> None:
    assert slot_label(Slot(START, START + HOUR * hours)) == label


@pytest.mark.parametrize(
    ("highest", "scale"),
    [
        (1, [1, 0]),
        (4, [4, 3, 2, 1, 0]),
        (5, [6, 4, 2, 0]),
        (9, [10, 5, 0]),
        (20, [20, 15, 10, 5, 0]),
        (41_700, [60_000, 40_000, 20_000, 0]),
    ],
)
def test_the_scale_has_round_values(highest: int, scale: list[int]) -> None:
    assert scale_to(highest) == scale


def test_bars_and_grid_lines_use_the_scale() -> None:
    found = drawn((5, 0), (0, 0))
    assert found.grid == [0, HEIGHT / 3, HEIGHT * 2 / 3, HEIGHT]
    assert found.bars[0].parts[0].height == round(HEIGHT * 5 / 6, 2)
    assert [(one.key, total) for one, total in found.keys] == [("a", 5), ("b", 0)]


def test_a_rate_is_named_beside_the_counts() -> None:
    rate = Rate("share", ("b",), ("a", "b"))
    found = chart("slug", "Title", SERIES, slots((3, 1), (0, 0)), link, rate)
    assert [bar.rate for bar in found.bars] == ["25.0 %", "-"]
    assert found.bars[0].description.endswith("good: 3, wrong: 1, share: 25.0 %")
    assert drawn((3, 1)).bars[0].rate == ""


def ticks_of(start: datetime, hours: int, number: int) -> dict[int, str]:
    """Place of a bar -> its text, without the empty ones."""
    length = HOUR * hours
    spans = [Slot(start + length * n, start + length * (n + 1)) for n in range(number)]
    bars = chart("slug", "Title", [], spans, link).bars
    return {n: bar.tick for n, bar in enumerate(bars) if bar.tick}


@pytest.mark.parametrize(
    ("hours", "number", "expected"),
    [
        (1, 24, {0: "12:00", 6: "18:00", 12: "11 May", 18: "06:00"}),
        (6, 8, {2: "11 May", 6: "12 May"}),
        (24, 13, {0: "10 May", 5: "15 May", 10: "20 May"}),
    ],
)
def test_some_bars_have_a_text(hours: int, number: int, expected: Any) -> None:
    """Every sixth hour, each midnight, or every fifth day."""
    assert ticks_of(START, hours, number) == expected


def test_the_last_bars_have_no_text() -> None:
    """It would stick out of the chart."""
    assert ticks_of(START - HOUR * 4, 1, 24) == {4: "12:00", 10: "18:00", 16: "11 May"}
