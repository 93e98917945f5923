"""Charts: every bar's place, height, text and links."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from accounts.admin_site.charts import HEIGHT, WIDTH, Part, Series, chart, slot_label
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
        Part(left, HEIGHT - 3 * scale, width, 3 * scale, ""),
        Part(left, 0, width, scale, "bad"),
    ]
    assert found.bars[1].parts == [
        Part(left + step, HEIGHT - 2 * scale, width, 2 * scale, "bad")
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
