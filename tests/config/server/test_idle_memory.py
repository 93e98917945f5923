"""What replaces uvicorn's events and deques behaves as they do."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from config.server.idle_memory import Pipeline, SmallEvent, shrink_connection
from tests.support.asgi import run

pytestmark = pytest.mark.once


def test_an_event_wakes_all_that_wait_and_those_who_come_later() -> None:
    async def story() -> None:
        event = SmallEvent()
        waits = [asyncio.create_task(event.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        assert len(event.waiters) == 3 and not event.is_set()
        waits[0].cancel()
        event.set()
        event.set()
        done = await asyncio.gather(*waits, return_exceptions=True)
        assert done[1:] == [True, True]
        assert isinstance(done[0], asyncio.CancelledError)
        assert event.waiters == [] and await event.wait()
        event.clear()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(event.wait(), 0.001)
        assert event.waiters == [] and not event.is_set()

    run(story())


def test_an_event_can_be_set_from_the_start() -> None:
    assert SmallEvent(was_set=True).is_set() and run(SmallEvent(was_set=True).wait())


def test_requests_wait_in_the_order_of_their_arrival() -> None:
    both: list[Any] = [Pipeline(), deque()]
    for queue in both:
        for number in range(3):
            queue.appendleft(number)
    assert [queue.pop() for queue in both] == [0, 0]
    assert list(both[0]) == list(both[1]) == [2, 1]
    both[0].clear()
    assert not both[0]


def test_who_stops_waiting_takes_nobody_along() -> None:
    async def story() -> None:
        event = SmallEvent()
        waits = [asyncio.create_task(event.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waits[0].cancel()
        await asyncio.gather(waits[0], return_exceptions=True)
        assert len(event.waiters) == 2
        event.set()
        assert await asyncio.wait_for(asyncio.gather(*waits[1:]), 5) == [True, True]

    run(story())


def test_a_connection_gets_both_and_may_write() -> None:
    """An event that is not set would hold every response back."""
    protocol: Any = SimpleNamespace(flow=SimpleNamespace(), pipeline=deque())
    shrink_connection(protocol)
    assert type(protocol.pipeline) is Pipeline
    assert type(protocol.flow._is_writable_event) is SmallEvent
    assert protocol.flow._is_writable_event.is_set()
