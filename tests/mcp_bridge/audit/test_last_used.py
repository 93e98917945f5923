"""When a token was last used is stored to the minute, in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError

from mcp_bridge.audit import last_used
from mcp_bridge.audit.bulk_insert import Use, update_last_used
from mcp_bridge.audit.last_used import PRECISION, LastUsedTracker

pytestmark = pytest.mark.once


class Clock:
    """The time of the tracker, and what it wrote."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.written: list[list[Use]] = []
        self.error: Exception | None = None

    def time(self) -> float:
        return self.now

    async def in_database(self, work: Any, uses: list[Use]) -> None:
        assert work is update_last_used
        if self.error:
            raise self.error
        self.written.append(uses)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(last_used, "in_database", found.in_database)
    monkeypatch.setattr(last_used, "time", SimpleNamespace(time=found.time))
    return found


def with_tracker(
    tell: Callable[[LastUsedTracker], Coroutine[Any, Any, None]],
) -> None:
    async def told() -> None:
        await tell(LastUsedTracker())

    asyncio.run(told())


def test_a_use_is_stored_to_the_minute() -> None:
    assert (PRECISION, last_used.WRITE_DELAY) == (60.0, 0.5)


def test_a_token_is_written_once_a_minute(clock: Clock) -> None:
    async def tell(tracker: LastUsedTracker) -> None:
        began = clock.now
        tracker.track("a", "::1")
        clock.now = began + PRECISION - 0.001
        tracker.track("a", "::2")
        tracker.track("b", "::3")
        clock.now = began + PRECISION
        tracker.track("a", "::4")
        await tracker.close()
        (uses,) = clock.written
        assert uses == [
            Use("a", began, "::1"),
            Use("b", began + PRECISION - 0.001, "::3"),
            Use("a", began + PRECISION, "::4"),
        ]

    with_tracker(tell)


def test_uses_of_a_moment_share_one_write(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(last_used, "WRITE_DELAY", 0.001)

    async def tell(tracker: LastUsedTracker) -> None:
        for name in "abc":
            tracker.track(name, "")
        task = tracker.writing
        assert task is not None and clock.written == []
        await task
        assert [[use.jti for use in group] for group in clock.written] == [list("abc")]
        assert tracker.writing is None and tracker.waiting == []
        tracker.track("d", "")
        assert tracker.writing is not None and tracker.writing is not task
        await tracker.writing
        assert [use.jti for use in clock.written[1]] == ["d"]

    with_tracker(tell)


def test_closing_writes_at_once_and_only_what_waits(clock: Clock) -> None:
    async def tell(tracker: LastUsedTracker) -> None:
        await tracker.close()
        assert clock.written == []
        tracker.track("a", "")
        task = tracker.writing
        assert task is not None
        await tracker.close()
        assert len(clock.written) == 1
        with pytest.raises(asyncio.CancelledError):
            await task
        await tracker.close()
        assert len(clock.written) == 1

    with_tracker(tell)


def test_a_failed_write_is_logged_and_the_next_one_works(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A message must not fail because of its last use."""

    async def tell(tracker: LastUsedTracker) -> None:
        clock.error = OperationalError("disk full")
        tracker.track("a", "")
        await tracker.close()
        assert "not written: disk full" in caplog.text
        clock.error = None
        tracker.track("b", "")
        await tracker.close()
        assert [use.jti for use in clock.written[0]] == ["b"]

    with_tracker(tell)


def test_the_memory_of_uses_is_bounded_by_the_tokens_of_a_minute(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(last_used, "MIN_TRACKED", 2)

    async def tell(tracker: LastUsedTracker) -> None:
        began = clock.now
        tracker.track("a", "")
        clock.now = began + 1
        tracker.track("b", "")
        assert set(tracker.tracked) == {"a", "b"}
        clock.now = began + PRECISION
        tracker.track("c", "")
        assert set(tracker.tracked) == {"b", "c"} and tracker.max_tracked == 2
        tracker.track("d", "")
        assert set(tracker.tracked) == {"b", "c", "d"} and tracker.max_tracked == 4
        clock.now += PRECISION
        for name in "ef":
            tracker.track(name, "")
        assert set(tracker.tracked) == {"e", "f"} and tracker.max_tracked == 2
        await tracker.close()

    with_tracker(tell)
