"""The order of waiting for threads, also where callers leave."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from threading import Event
from typing import Any

import pytest

from mcp_bridge.server.concurrency_limits import ConcurrencyLimit, ThreadSlots

pytestmark = pytest.mark.once


def run(story: Coroutine[Any, Any, None]) -> None:
    """On a new event loop, with a timeout."""
    asyncio.run(asyncio.wait_for(story, 10))


def test_a_users_calls_wait_in_order() -> None:
    """Other users have their own queue."""

    async def story() -> None:
        slots, order = ThreadSlots(2), list[int]()

        async def call(number: int) -> None:
            await slots.acquire(1)
            order.append(number)

        for _ in range(2):
            await slots.acquire(1)
        calls = [asyncio.create_task(call(number)) for number in range(3)]
        await asyncio.sleep(0)
        await slots.acquire(2)
        slots.release(2)
        assert order == []
        for expected in ([0], [0, 1], [0, 1, 2]):
            slots.release(1)
            await asyncio.sleep(0)
            assert order == expected
        await asyncio.gather(*calls)
        for _ in range(2):
            slots.release(1)
        assert slots.running == slots.waiting == {}

    run(story())


@pytest.mark.parametrize("moment", ["before", "handed over"])
def test_leaving_the_queue_loses_no_turn(moment: str) -> None:
    """Covers a caller that leaves at the moment it gets its slot."""

    async def story() -> None:
        slots = ThreadSlots(1)
        await slots.acquire(1)
        gone = asyncio.create_task(slots.acquire(1))
        stays = asyncio.create_task(slots.acquire(1))
        await asyncio.sleep(0)
        if moment == "handed over":
            slots.release(1)
            gone.cancel()
        else:
            gone.cancel()
            slots.release(1)
        with pytest.raises(asyncio.CancelledError):
            await gone
        await stays
        slots.release(1)
        assert slots.running == slots.waiting == {}

    run(story())


def test_a_turn_lasts_until_its_thread_ends() -> None:
    """A cancelled call leaves its thread running."""

    async def story() -> None:
        slots, go_on, started = ThreadSlots(1), Event(), Event()

        def work() -> None:
            started.set()
            go_on.wait(10)

        async def call() -> None:
            async with slots.slot(1) as slot:
                await asyncio.to_thread(slot.release_after(work))

        task = asyncio.create_task(call())
        await asyncio.to_thread(started.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert slots.running == {1: 1}
        go_on.set()
        await slots.acquire(1)
        slots.release(1)
        async with slots.slot(1):
            """Nothing was begun in a thread."""
        assert slots.running == {}

    run(story())


def test_reserved_bytes_are_released() -> None:
    """A message gives back the bytes that it counted."""
    bound = ConcurrencyLimit("bytes", "MAX_BODIES_PER_USER", "MAX_BODIES", 1)
    for amount in (5, 7):
        bound.acquire(1, amount)
    bound.release(1, 12)
    assert (bound.amounts, bound.total) == ({}, 0)
