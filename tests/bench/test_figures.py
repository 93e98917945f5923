"""Medians, goals and the page: the page shows the measured values."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import targets
from bench.interleaved import Figures, Results, compare
from bench.report_page import table, write_section
from bench.wrk import Load, Slice, call

pytestmark = pytest.mark.once


class Runner:
    """A contender with given samples."""

    def __init__(self, label: str, rates: list[float]) -> None:
        self.label, self.rates, self.asked = label, rates, 0

    def measure(self, connections: int, seconds: int) -> tuple[Slice, float]:
        rate = self.rates[self.asked % len(self.rates)]
        self.asked += 1
        return Slice(rate, 1, 2, wrong=int(rate == 7), requests=10), 100.0


def comparison(base: list[float], other: list[float], rounds: int) -> Results:
    """The result of a comparison of these samples."""
    pair = Runner("bare", base), Runner("Portico, SQLite, audit batch", other)
    return compare(pair[0], [pair[1]], (16,), rounds)  # type: ignore[arg-type, list-item]


def test_a_ratio_is_per_round_and_the_first_round_is_discarded() -> None:
    """Each value is divided by the baseline of the same round; the median counts."""
    results = comparison([1, 100, 200, 400], [999, 50, 120, 400], 3)
    ours = results["Portico, SQLite, audit batch", 16]
    assert ours.ratios == [0.5, 0.6, 1.0] and ours.ratio == 0.6
    assert ours.spread == "0.50-1.00" and ours.rate == 120


def test_wrong_answers_are_reported() -> None:
    """A fast error is not a fast call."""
    assert "none was wrong" in targets.wrong(comparison([1], [2], 1))
    assert "batch at 16: 1 of 10" in targets.wrong(comparison([1], [7], 1))


def test_goals_are_compared_with_the_median() -> None:
    """A goal is met or missed per database, audit mode and concurrency."""
    name = "Portico, {}, audit {}"
    assert targets.to_bare(name.format("SQLite", "batch"), 16) == 1.25
    assert targets.to_bare(name.format("PostgreSQL", "durable"), 64) == 0.85
    assert targets.to_bare(name.format("PostgreSQL", "durable"), 1) == 0.4
    assert targets.to_bare(name.format("SQLite", "batch, sessions"), 64) == 1.0
    assert targets.to_bare(name.format("SQLite", "off"), 1) is None
    assert targets.to_bare("Portico, PostgreSQL, tokens", 4) == 1.0
    assert targets.to_bare("FastMCP, its JWT verifier", 16) is None
    assert targets.against("django-mcpz, its tokens, SQLite", "SQLite") == 2.0
    assert targets.cell(Figures(ratios=[0.7, 0.8, 0.9]), 0.8).endswith("meets 0.80")
    assert "**misses** 0.81" in targets.cell(Figures(ratios=[0.7, 0.8, 0.9]), 0.81)


def test_a_section_replaces_only_itself(tmp_path: Path) -> None:
    """Each table can be measured again alone."""
    page = tmp_path / "page.md"
    page.write_text("# Head\n")
    for name, text in (("one", "1"), ("two", "2"), ("one", r"3 \1")):
        write_section(name, text, name.title(), page)
    written = page.read_text()
    assert written.startswith("# Head\n") and written.count("## ") == 2
    assert written.index(r"3 \1") < written.index("2\n") and "\n1\n" not in written
    assert table(["a"], [["b"]]) == "| a |\n| --- |\n| b |"


def test_each_token_is_written_with_a_body(tmp_path: Path) -> None:
    folder = call().write(tmp_path / "call", ["one", "two"])
    lines = (folder / "requests").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["Bearer one", "Bearer two"]
    assert "Mcp-Name: greet" in (folder / "headers").read_text()
    once = Load(bodies=("a", "b", "c")).write(tmp_path / "once", [])
    assert (once / "requests").read_text() == "\ta\n\tb\n\tc\n"
