"""A refusal in place of running a tool stays; other refusals pass."""

from __future__ import annotations

import asyncio
import time

import pytest
from django.db import DatabaseError

from accounts.tokens.principal import Unauthenticated
from mcp_bridge.cache.recheck import FRESH_FOR, Recheck


class FlickeringReader(Recheck):
    """Reads rows whose access disappears and returns."""

    reads = 0
    wrong: Exception = Unauthenticated("revoked")

    async def read(self) -> None:
        self.reads += 1
        if self.reads == 1:
            raise self.wrong
        self.read_at = time.perf_counter()


@pytest.fixture
def recheck() -> FlickeringReader:
    """The recheck of a call that is never checked."""
    call: object = None
    return FlickeringReader(call, "", "", time.perf_counter())  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [Unauthenticated("revoked"), DatabaseError("away")])
def test_restored_access_does_not_allow_a_refused_call(
    recheck: FlickeringReader, wrong: Exception
) -> None:
    """The tool did not run, so the SDK's response must not be sent."""
    recheck.wrong = wrong
    assert not recheck.due
    with pytest.raises(type(wrong)):
        asyncio.run(recheck.before_running())
    for _again in range(2):
        with pytest.raises(type(wrong)):
            asyncio.run(recheck.now())
        assert recheck.due
    assert asyncio.run(recheck.problem()) is wrong
    assert recheck.reads == 1


def test_a_short_outage_does_not_end_a_running_call(
    recheck: FlickeringReader,
) -> None:
    """While a tool runs access is only watched; the last check decides."""
    recheck.wrong = DatabaseError("away")
    assert asyncio.run(recheck.problem()) is recheck.wrong
    assert asyncio.run(recheck.problem()) is None
    assert not recheck.due


def test_a_read_is_current_for_a_moment_only(recheck: FlickeringReader) -> None:
    """Otherwise a delayed response would be decided by old rows."""
    assert not recheck.due
    recheck.read_at -= FRESH_FOR
    assert recheck.due
