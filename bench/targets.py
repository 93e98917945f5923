"""The goals of the project, and whether a figure meets its goal."""

from __future__ import annotations

from bench.interleaved import Figures, Results

Goals = dict[str, float]
BATCH: Goals = {"SQLite": 1.25, "PostgreSQL": 1.10}
DURABLE: Goals = {"SQLite": 1.00, "PostgreSQL": 0.85}
ALONE: Goals = {"SQLite": 1.15, "PostgreSQL": 0.75}
DURABLE_ALONE: Goals = {"SQLite": 0.55, "PostgreSQL": 0.40}
SESSIONS: Goals = {"SQLite": 1.00, "PostgreSQL": 0.95}
ISSUING = 1.0
"""Issuing and refreshing beside SimpleJWT alone."""
AGAINST = {
    "SDK bearer": {"SQLite": 1.4, "PostgreSQL": 1.3},
    "FastMCP": {"SQLite": 4.0, "PostgreSQL": 4.0},
    "SimpleJWT": {"SQLite": 4.0, "PostgreSQL": 4.0},
    "django-mcpz": {"SQLite": 2.0, "PostgreSQL": 2.0},
}
MANY_REVOKED, MANY_TOKENS = 0.95, 0.90
MEMORY_MB = 50.0


def to_bare(label: str, connections: int) -> float | None:
    """The goal for the ratio to the base of its table; None if there is none."""
    if not label.startswith("Portico"):
        return None
    vendor = "PostgreSQL" if "PostgreSQL" in label else "SQLite"
    one = connections == 1
    if "token" in label:
        return ISSUING
    if "sessions" in label:
        return None if one else SESSIONS[vendor]
    if "batch" in label:
        return (ALONE if one else BATCH)[vendor]
    if "durable" in label:
        return (DURABLE_ALONE if one else DURABLE)[vendor]
    return None


def against(label: str, vendor: str) -> float:
    """The goal for the ratio to a peer's rate."""
    return next(goal[vendor] for name, goal in AGAINST.items() if name in label)


def verdict(value: float, goal: float | None, over: bool = False) -> str:
    """`meets 0.80` or `misses 0.80`; empty without a goal."""
    if goal is None:
        return ""
    met = value > goal if over else value >= goal
    return f"{'meets' if met else '**misses**'} {goal:.2f}"


def cell(figures: Figures, goal: float | None = None) -> str:
    """Median, spread and verdict as a table cell."""
    value = f"{figures.ratio:.2f} ({figures.spread})"
    return f"{value} {verdict(figures.ratio, goal)}".strip()


def wrong(results: Results) -> str:
    """A sentence about wrong answers."""
    bad = [
        f"{label} at {c}: {f.wrong} of {sum(s.requests for s in f.slices)}"
        for (label, c), f in results.items()
        if f.wrong
    ]
    total = sum(s.requests for f in results.values() for s in f.slices)
    if not bad:
        return f"Of {total:,} answers none was wrong."
    return f"Wrong answers (not counted as calls): {'; '.join(bad)}. In all {total:,}."
