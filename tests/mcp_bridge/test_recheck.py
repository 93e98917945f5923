"""A message that was refused while it waited stays refused."""

from __future__ import annotations

import asyncio
import time

import pytest

from accounts.principal import Unauthenticated
from mcp_bridge.recheck import FRESH_FOR, Recheck


class Flickering(Recheck):
    """Reads rows in which a right goes and comes back."""

    reads = 0

    async def read(self) -> None:
        """Refuse once."""
        self.reads += 1
        if self.reads == 1:
            raise Unauthenticated("revoked")
        self.read_at = time.perf_counter()


def test_a_right_that_comes_back_does_not_help_what_was_refused() -> None:
    """The tool was not run: what the SDK makes of that must not be the answer."""
    call: object = None
    recheck = Flickering(call, "", "", time.perf_counter())  # type: ignore[arg-type]
    assert not recheck.due
    for _again in range(2):
        with pytest.raises(Unauthenticated):
            asyncio.run(recheck.now())
        assert recheck.due
    assert recheck.reads == 1


def test_a_read_counts_as_made_just_now_for_a_moment_only() -> None:
    """Else a held answer would go out by what was."""
    call: object = None
    recheck = Recheck(call, "", "", time.perf_counter())  # type: ignore[arg-type]
    assert not recheck.due
    recheck.read_at -= FRESH_FOR
    assert recheck.due
