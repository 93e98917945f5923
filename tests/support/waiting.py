"""Waits for something that another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(
    true: Callable[[], bool], seconds: float = 20, step: float = 0.02
) -> None:
    """Return as soon as `true` returns true. Raises AssertionError after `seconds`."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, f"not true within {seconds:g} s"
        time.sleep(step)
