"""The tool of every peer. It does nothing, so only the path to it is measured."""

from __future__ import annotations

import os


async def greet(name: str) -> str:
    """Greet somebody."""
    return f"hello {name}"


def more_names() -> list[str]:
    """Names of the other tools: BENCH_TOOLS in total, with `greet`."""
    return [f"greet_{number}" for number in range(1, int(os.getenv("BENCH_TOOLS", 1)))]
