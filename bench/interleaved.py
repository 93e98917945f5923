"""Interleaved rounds: A B C A D E ..., the first discarded, medians of their ratios."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from statistics import median

from bench.processes import Server
from bench.wrk import Load, Slice, run

_folders = count()


@dataclass
class Contender:
    """A server with the load it is to bear."""

    label: str
    server: Server
    load: Load

    def __post_init__(self) -> None:
        folder = self.server.folder / f"load-{next(_folders)}"
        self.files = self.load.write(folder, self.server.tokens)
        self.sent = 0

    def bear(self, connections: int, seconds: int) -> tuple[Slice, float]:
        """One slice: what came of it, and microseconds of CPU a request."""
        before = self.server.cpu_seconds()
        url = f"{self.server.url}{self.load.path}"
        skip = self.sent if self.load.once else 0
        found = run(url, self.files, self.load.expected, connections, seconds, skip)
        self.sent += found.requests + connections
        used = self.server.cpu_seconds() - before
        return found, used * 1e6 / max(found.requests, 1)


@dataclass
class Figures:
    """All kept slices of one contender at one concurrency."""

    slices: list[Slice] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    """To the base in the same round."""
    cpu_us: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The median."""
        return median(self.ratios)

    @property
    def spread(self) -> str:
        """Lowest and highest ratio of a round."""
        return f"{min(self.ratios):.2f}-{max(self.ratios):.2f}"

    @property
    def rate(self) -> float:
        """Median of right answers a second."""
        return median(s.rate for s in self.slices)

    @property
    def cpu(self) -> float:
        """Median of microseconds a request."""
        return median(self.cpu_us)

    @property
    def p99(self) -> float:
        """Median of the slices' 99th percentiles, ms."""
        return median(s.p99_ms for s in self.slices)

    @property
    def wrong(self) -> int:
        """Wrong answers in all."""
        return sum(s.wrong for s in self.slices)

    def over(self, other: Figures) -> list[float]:
        """This one's ratio over another's, round by round."""
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
    """Run the base before every two others, at each concurrency, round after round."""
    found: Results = {}
    for number in range(rounds + 1):
        for c in connections:
            for at in range(0, len(others), 2):
                pair = others[at : at + 2]
                slices = [who.bear(c, seconds) for who in (base, *pair)]
                if number == 0:
                    continue
                first = slices[0][0].rate or 1.0
                for who, (one, cpu) in zip((base, *pair), slices, strict=True):
                    keep(found, who, c, one, cpu, one.rate / first)
        print(f"  round {number} of {rounds}", file=sys.stderr, flush=True)
    return found


def keep(
    found: Results, who: Contender, c: int, one: Slice, cpu: float, ratio: float
) -> None:
    """Add a slice; tell of wrong answers at once."""
    figures = found.setdefault((who.label, c), Figures())
    figures.slices.append(one)
    figures.ratios.append(ratio)
    figures.cpu_us.append(cpu)
    if one.wrong:
        told = f"  {who.label}, {c} connections: {one.wrong} of {one.requests} wrong"
        print(f"{told}: {one.sample[:300]}", file=sys.stderr)
