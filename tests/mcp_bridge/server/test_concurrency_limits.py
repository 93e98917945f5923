"""The order of waiting for threads, also where callers leave."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from threading import Event
from typing import Any

import anyio.to_thread
import pytest

from accounts.rate_limits.errors import RateLimited
from mcp_bridge.metrics import prometheus
from mcp_bridge.server import concurrency_limits
from mcp_bridge.server.concurrency_limits import (
    BODIES,
    CALLS,
    STREAM_METHODS,
    STREAMS,
    THREAD_SLOTS,
    THREADS_PER_USER,
    TOKEN_STREAMS,
    ConcurrencyExceeded,
    ConcurrencyLimit,
    Reservation,
    ThreadSlots,
)

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


LIMITS = [CALLS, STREAMS, BODIES]


@pytest.fixture
def exceeded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the metrics count."""
    counted: list[str] = []
    monkeypatch.setattr(prometheus, "count_limit_exceeded", counted.append)
    return counted


@pytest.fixture(params=LIMITS, ids=lambda limit: limit.name)
def limit(request: pytest.FixtureRequest, settings: Any) -> ConcurrencyLimit:
    """One of the limits, empty: two for each user, three for all."""
    found: ConcurrencyLimit = request.param
    setattr(settings, found.per_user, 2)
    setattr(settings, found.in_total, 3)
    return ConcurrencyLimit(found.name, found.per_user, found.in_total, found.wait)


def test_a_user_over_the_own_limit_is_429(
    limit: ConcurrencyLimit, exceeded: list[str]
) -> None:
    for _ in range(2):
        limit.acquire(1)
    with pytest.raises(RateLimited) as error:
        limit.acquire(1)
    assert (error.value.status, error.value.wait) == (429, limit.wait)
    assert str(error.value) == f"You have too many {limit.name} open."
    assert exceeded == [limit.name]
    assert (limit.amounts, limit.total) == ({1: 2}, 2), "nothing is added"
    limit.acquire(2)


def test_all_users_together_over_the_limit_is_503(
    limit: ConcurrencyLimit, exceeded: list[str]
) -> None:
    for user in (1, 1, 2):
        limit.acquire(user)
    with pytest.raises(ConcurrencyExceeded) as error:
        limit.acquire(3)
    assert (error.value.status, error.value.wait) == (503, limit.wait)
    assert error.value.error == "temporarily_unavailable"
    assert str(error.value) == f"Too many {limit.name} are open."
    assert exceeded == [limit.name]
    assert (limit.amounts, limit.total) == ({1: 2, 2: 1}, 3)
    limit.release(1)
    limit.acquire(3)
    assert (limit.amounts, limit.total) == ({1: 1, 2: 1, 3: 1}, 3)


def test_an_amount_counts_as_a_whole(
    limit: ConcurrencyLimit, exceeded: list[str]
) -> None:
    with pytest.raises(RateLimited):
        limit.acquire(1, 3)
    limit.acquire(1, 2)
    with pytest.raises(ConcurrencyExceeded):
        limit.acquire(2, 2)
    limit.release(1, 1)
    assert (limit.amounts, limit.total) == ({1: 1}, 1)


def test_each_limit_reads_its_own_settings() -> None:
    found = [(one.name, one.per_user, one.in_total, one.wait) for one in LIMITS]
    assert found == [
        ("calls", "MAX_CALLS_PER_USER", "MAX_CALLS", 1.0),
        ("streams", "MAX_STREAMS_PER_USER", "MAX_STREAMS", 10.0),
        ("bytes of bodies", "MAX_BODIES_PER_USER", "MAX_BODIES", 1.0),
    ]


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> list[ConcurrencyLimit]:
    """The three limits without what other tests left."""
    fresh = [
        ConcurrencyLimit(one.name, one.per_user, one.in_total, one.wait)
        for one in LIMITS
    ]
    for name, one in zip(("CALLS", "STREAMS", "BODIES"), fresh, strict=True):
        monkeypatch.setattr(concurrency_limits, name, one)
    return fresh


def totals(limits: list[ConcurrencyLimit]) -> list[int]:
    return [one.total for one in limits]


def test_a_message_gives_back_all_that_it_counted(
    empty: list[ConcurrencyLimit],
) -> None:
    first, second = Reservation(1), Reservation(1)
    first.add_bytes(5)
    first.add_bytes(7)
    second.add_bytes(1)
    assert totals(empty) == [2, 0, 13]
    first.count_as_stream()
    assert totals(empty) == [1, 1, 13]
    first.release()
    assert totals(empty) == [1, 0, 1]
    second.release()
    assert totals(empty) == [0, 0, 0]


def test_a_refused_stream_stays_a_call_until_it_is_released(
    empty: list[ConcurrencyLimit], settings: Any
) -> None:
    settings.MAX_STREAMS_PER_USER = 0
    reservation = Reservation(1)
    with pytest.raises(RateLimited):
        reservation.count_as_stream()
    assert totals(empty) == [1, 0, 0]
    reservation.release()
    assert totals(empty) == [0, 0, 0]


def test_one_token_has_a_part_of_its_owners_streams(
    empty: list[ConcurrencyLimit], settings: Any
) -> None:
    """A leaked or looping client leaves streams for the owner's other clients."""
    assert settings.MAX_STREAMS_PER_TOKEN < settings.MAX_STREAMS_PER_USER
    settings.MAX_STREAMS_PER_TOKEN = 2
    held = [Reservation(1) for _ in range(4)]
    for one in held[:2]:
        one.count_as_stream("laptop")
    with pytest.raises(RateLimited) as refused:
        held[2].count_as_stream("laptop")
    assert refused.value.status == 429 and refused.value.wait == 10
    held[3].count_as_stream("phone")
    for one in held:
        one.release()
    assert totals(empty) == [0, 0, 0] and not TOKEN_STREAMS.amounts
    again = Reservation(1)
    again.count_as_stream("laptop")
    again.release()


def test_refused_bytes_are_not_given_back(
    empty: list[ConcurrencyLimit], settings: Any
) -> None:
    settings.MAX_BODIES_PER_USER = 5
    reservation = Reservation(1)
    reservation.add_bytes(5)
    with pytest.raises(RateLimited):
        reservation.add_bytes(1)
    reservation.release()
    assert totals(empty) == [0, 0, 0]


def test_what_stays_open_counts_as_a_stream() -> None:
    assert STREAM_METHODS == {"stream/open", "subscriptions/listen"}


def test_one_user_has_half_of_the_threads() -> None:
    async def story() -> None:
        threads = anyio.to_thread.current_default_thread_limiter().total_tokens
        assert THREADS_PER_USER * 2 == threads
        assert THREAD_SLOTS.per_user == THREADS_PER_USER

    run(story())


def test_a_turn_is_freed_once_and_on_its_own_loop() -> None:
    """A thread that outlives the server's loop frees nothing."""

    async def story() -> None:
        slots = ThreadSlots(1)
        async with slots.slot(1) as slot:
            slot.release()
            slot.release()
            assert slots.running == {}
        left.append(slot.release_after(lambda: "result"))

    left: list[Any] = []
    run(story())
    assert left[0]() == "result"


def test_a_failing_turn_is_freed() -> None:
    async def story() -> None:
        slots = ThreadSlots(1)

        def fail() -> None:
            raise KeyError("broken")

        with pytest.raises(KeyError):
            async with slots.slot(1) as slot:
                await asyncio.to_thread(slot.release_after(fail))
        await asyncio.sleep(0)
        assert slots.running == {}

    run(story())


def test_who_leaves_before_the_turn_comes_takes_none() -> None:
    async def story() -> None:
        slots = ThreadSlots(1)
        await slots.acquire(1)
        waiting = [asyncio.create_task(slots.acquire(1)) for _ in range(2)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        slots.release(1)
        assert slots.running == slots.waiting == {}
        await asyncio.gather(*waiting, return_exceptions=True)
        assert slots.running == slots.waiting == {}

    run(story())
