"""The threads: woken by new deliveries, stopped by no error, closed in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import DatabaseError, connections

from accounts.notifications import worker
from accounts.notifications.worker import NotificationWorker
from tests.support.waiting import wait_until

Started = Callable[[], NotificationWorker]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    """Starts workers whose database is not used; closes them."""
    made: list[NotificationWorker] = []
    monkeypatch.setattr(worker, "POLL", 60.0)
    monkeypatch.setattr(worker, "send_audit_batch", lambda: False)
    monkeypatch.setattr(connections, "close_all", lambda: None)

    def start() -> NotificationWorker:
        made.append(NotificationWorker())
        made[-1].start()
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_a_wake_sends_until_nothing_is_due(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, sent = [1, 2, 3], []
    lock = threading.Lock()

    def send() -> bool:
        with lock:
            if waiting:
                sent.append(waiting.pop())
                return True
            return False

    monkeypatch.setattr(worker, "send_next", send)
    running = started()
    assert sent == []
    running.wake()
    wait_until(lambda: len(sent) == 3)


@pytest.mark.parametrize("error", [DatabaseError("gone"), ValueError("a defect")])
def test_an_error_ends_no_thread(
    started: Started,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An outage is a line; a defect is logged with its traceback."""
    caplog.set_level("INFO")
    tried: list[int] = []

    def send() -> bool:
        tried.append(1)
        raise error

    monkeypatch.setattr(worker, "send_next", send)
    running = started()
    for number in range(1, 3):
        running.wake()
        wait_until(lambda number=number: len(tried) >= worker.THREADS * number)  # type: ignore[misc]
    assert all(thread.is_alive() for thread in running.threads)
    running.close()
    outage = isinstance(error, DatabaseError)
    logged = [line for line in caplog.records if line.name == worker.__name__]
    assert {line.levelname for line in logged} == {"INFO" if outage else "ERROR"}
    assert all(bool(line.exc_info) is not outage for line in logged)


def test_one_thread_looks_for_occasions_from_time_to_time(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    tries: list[int] = []

    def send() -> bool:
        tries.append(1)
        return False

    monkeypatch.setattr(worker, "look_around", lambda: looks.append(1))
    monkeypatch.setattr(worker, "send_next", send)
    monkeypatch.setattr(worker, "FIRST_LOOK", 0.0)
    running = started()
    running.wake()
    wait_until(lambda: bool(looks))
    running.wake()
    time.sleep(0.05)
    assert looks == [1]
    assert len(tries) <= 2 * worker.THREADS, "each thread once for each wake"


def test_a_stop_waits_for_the_attempt_in_progress(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, done = threading.Event(), []

    def send() -> bool:
        began.set()
        time.sleep(0.1)
        done.append(1)
        return True

    monkeypatch.setattr(worker, "send_next", send)
    running = started()
    running.wake()
    assert began.wait(10)
    running.close()
    assert done and not any(thread.is_alive() for thread in running.threads)


def test_the_worker_of_this_process_is_woken_by_new_deliveries() -> None:
    from accounts.models.notifications import outbox

    listeners: list[Any] = outbox._listeners
    assert worker.WORKER.wake in listeners


def test_one_thread_looks_around_and_all_free_their_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[str] = []
    looks: list[bool] = []
    monkeypatch.setattr(worker, "POLL", 60.0)
    monkeypatch.setattr(
        connections, "close_all", lambda: closed.append(threading.current_thread().name)
    )
    made = NotificationWorker()
    monkeypatch.setattr(made, "work", looks.append)
    made.start()
    names = [thread.name for thread in made.threads]
    made.close()
    wait_until(lambda: len(closed) == worker.THREADS)
    assert sorted(looks) == [False] * (worker.THREADS - 1) + [True]
    assert sorted(closed) == sorted(names) and len(set(names)) == worker.THREADS


@pytest.mark.parametrize(
    ("next_", "batch"), [(True, True), (True, False), (False, True)]
)
def test_notifications_and_the_audit_take_turns(
    monkeypatch: pytest.MonkeyPatch, next_: bool, batch: bool
) -> None:
    """Many of one kind do not delay the other."""
    tried: list[str] = []

    def one(name: str, due: bool) -> Callable[[], bool]:
        def send() -> bool:
            tried.append(name)
            return due

        return send

    monkeypatch.setattr(worker, "send_next", one("next", next_))
    monkeypatch.setattr(worker, "send_audit_batch", one("batch", batch))
    assert NotificationWorker().send() and tried == ["next", "batch"]


def test_what_waits_is_looked_for_in_seconds_and_occasions_in_minutes() -> None:
    """And a stopping server waits less than its manager does."""
    assert 1 <= worker.POLL <= 10
    assert 60 <= worker.LOOK_EVERY <= 15 * 60
    assert worker.FIRST_LOOK <= 60 and worker.CLOSE_SECONDS <= 5


def test_a_stop_wakes_threads_that_wait(started: Started) -> None:
    """They would hold the stopping server for seconds."""
    running = started()
    began = time.monotonic()
    running.close(30)
    assert not any(thread.is_alive() for thread in running.threads)
    assert time.monotonic() - began < 20
