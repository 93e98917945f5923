"""Interleaved rounds: A B C A D E ...; the first round is discarded."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from statistics import median

from bench.processes import Server
from bench.wrk import PACED, SCRIPT, Load, Slice, run

_folders = count()


@dataclass
class Contender:
    """A server and the load for it."""

    label: str
    server: Server
    load: Load

    def __post_init__(self) -> None:
        folder = self.server.folder / f"load-{next(_folders)}"
        self.files = self.load.write(folder, self.server.tokens)
        self.sent = 0

    def measure(self, connections: int, seconds: int) -> tuple[Slice, float]:
        """Run one slice; returns it with the CPU time per request in microseconds."""
        before = self.server.cpu_seconds()
        url = f"{self.server.url}{self.load.path}"
        skip = self.sent if self.load.once else 0
        script = PACED if self.load.paced else SCRIPT
        expected = self.load.expected
        result = run(url, self.files, expected, connections, seconds, skip, script)
        self.sent += result.requests + connections
        used = self.server.cpu_seconds() - before
        return result, used * 1e6 / max(result.requests, 1)


@dataclass
class Figures:
    """All slices of one contender at one concurrency."""

    slices: list[Slice] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    """Ratio to the base in the same round."""
    cpu_us: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def spread(self) -> str:
        """Lowest and highest ratio of a round."""
        return f"{min(self.ratios):.2f}-{max(self.ratios):.2f}"

    @property
    def rate(self) -> float:
        """Median of correct answers per second."""
        return median(s.rate for s in self.slices)

    @property
    def cpu(self) -> float:
        """Median of CPU microseconds per request."""
        return median(self.cpu_us)

    @property
    def p50(self) -> float:
        """Median of the slices' medians, ms."""
        return median(s.p50_ms for s in self.slices)

    @property
    def p99(self) -> float:
        """Median of the slices' 99th percentiles, ms."""
        return median(s.p99_ms for s in self.slices)

    @property
    def wrong(self) -> int:
        """Number of all wrong answers."""
        return sum(s.wrong for s in self.slices)

    def over(self, other: Figures) -> list[float]:
        """Quotients of the ratios, round by round."""
        return [a / b for a, b in zip(self.ratios, other.ratios, strict=True) if b]


Results = dict[tuple[str, int], Figures]
"""(label, connections) -> figures."""


def compare(
    base: Contender,
    others: Sequence[Contender],
    connections: Sequence[int],
    rounds: int,
    seconds: int = 1,
) -> Results:
    """Run the base before every two others, at each concurrency, in each round."""
    results: Results = {}
    for number in range(rounds + 1):
        for c in connections:
            for at in range(0, len(others), 2):
                pair = others[at : at + 2]
                slices = [who.measure(c, seconds) for who in (base, *pair)]
                if number == 0:
                    continue
                first = slices[0][0].rate or 1.0
                for who, (one, cpu) in zip((base, *pair), slices, strict=True):
                    keep(results, who, c, one, cpu, one.rate / first)
        print(f"  round {number} of {rounds}", file=sys.stderr, flush=True)
    return results


def keep(
    results: Results, who: Contender, c: int, one: Slice, cpu: float, ratio: float
) -> None:
    """Add a slice, and print wrong answers at once."""
    figures = results.setdefault((who.label, c), Figures())
    figures.slices.append(one)
    figures.ratios.append(ratio)
    figures.cpu_us.append(cpu)
    if one.wrong:
        message = f"  {who.label}, {c} connections: {one.wrong} of {one.requests} wrong"
        print(f"{message}: {one.sample[:300]}", file=sys.stderr)
