"""Who has waited longest is next; nobody waits longer than they said."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from config.sqlite.write_queue import WriteQueue
from tests.support.waiting import wait_until

pytestmark = pytest.mark.once


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
def queue() -> WriteQueue:
    """A queue with somebody in it."""
    found = WriteQueue()
    assert found.enter(0)
    return found


def waiter(pool: ThreadPoolExecutor, queue: WriteQueue, wait: float) -> Future[bool]:
    """A thread that has joined the queue."""
    before = len(queue.waiting)
    entering = pool.submit(queue.enter, wait)
    wait_until(lambda: len(queue.waiting) > before or entering.done())
    return entering


def test_they_enter_in_the_order_of_their_arrival(
    queue: WriteQueue, threads: ThreadPoolExecutor
) -> None:
    first, second, third = (waiter(threads, queue, 20) for _ in range(3))
    for now, later in ((first, second), (second, third)):
        assert not now.done()
        queue.leave()
        assert now.result(20) and not later.done()
    assert not queue.enter(0), "who comes back must not pass those who wait"
    queue.leave()
    assert third.result(20)
    queue.leave()
    assert queue.enter(0)


def test_who_gives_up_keeps_nobody_waiting(
    queue: WriteQueue, threads: ThreadPoolExecutor
) -> None:
    patient = waiter(threads, queue, 20)
    started = time.monotonic()
    assert not queue.enter(0.05) and time.monotonic() - started >= 0.05
    impatient = waiter(threads, queue, 0.05)
    last = waiter(threads, queue, 20)
    assert not impatient.result(20)
    for one in (patient, last):
        queue.leave()
        assert one.result(20)
    queue.leave()
    assert queue.enter(0)


def test_a_turn_that_comes_while_one_gives_up_is_taken(
    queue: WriteQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the queue would stay taken by nobody."""

    class Late:
        """A lock whose wait ends just before its turn comes."""

        def acquire(self, timeout: float | None = None) -> bool:
            if timeout is not None:
                queue.leave()
            return timeout is None

        def release(self) -> None:
            pass

    monkeypatch.setattr("config.sqlite.write_queue.Lock", Late)
    assert queue.enter(0.01) and not queue.waiting
    monkeypatch.undo()
    queue.leave()
    assert queue.enter(0)


def test_one_is_in_at_a_time(threads: ThreadPoolExecutor) -> None:
    queue, inside, most = WriteQueue(), list[int](), list[int]()

    def work() -> None:
        for _ in range(50):
            assert queue.enter(20)
            inside.append(threading.get_ident())
            most.append(len(inside))
            time.sleep(0)
            inside.pop()
            queue.leave()

    for done in [threads.submit(work) for _ in range(8)]:
        done.result(60)
    assert most == [1] * 400
