"""The tool that every peer offers; it does nothing, so the way to it is measured."""

from __future__ import annotations

import os


async def greet(name: str) -> str:
    """Greet somebody."""
    return f"hello {name}"


def more_names() -> list[str]:
    """Names of the further tools: BENCH_TOOLS in all, `greet` included."""
    return [f"greet_{number}" for number in range(1, int(os.getenv("BENCH_TOOLS", 1)))]
