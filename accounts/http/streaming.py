"""Streams of any size in constant memory, and work that slow readers cannot delay.

Under ASGI, Django reads a synchronous iterator to its end before it sends a byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, TypeVar

from django.db import connections

T = TypeVar("T")


async def stream_from_thread(
    make: Callable[[], Iterator[bytes]],
) -> AsyncIterator[bytes]:
    """Yield the parts of a synchronous generator that runs on a separate thread.

    A pool of several threads would fail: a database connection and its cursor belong
    to one thread. The generator is closed when the response ends or the client leaves.
    """
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="portico-stream")
    source = make()

    def finish() -> None:
        source.close()  # type: ignore[attr-defined]
        connections.close_all()

    try:
        while (
            part := await loop.run_in_executor(executor, next, source, None)
        ) is not None:
            yield part
    finally:
        executor.submit(finish)
        executor.shutdown(wait=False)


def run_on_thread(make: Callable[[], Iterator[T]]) -> Iterator[T]:
    """Yield the parts of a generator that runs on a separate thread.

    A transaction inside it does not wait for the reader of its progress. If the reader
    stops early, the generator is closed at its next step and rolls back.
    """
    steps: SimpleQueue[tuple[str, Any]] = SimpleQueue()
    cancelled = Event()
    worker = Thread(target=_run_into_queue, args=(make, steps, cancelled))
    worker.start()
    try:
        while (step := steps.get())[0] == "part":
            yield step[1]
        if step[0] == "error":
            raise step[1]
    finally:
        cancelled.set()
        worker.join()


def _run_into_queue(
    make: Callable[[], Iterator[T]],
    steps: SimpleQueue[tuple[str, Any]],
    cancelled: Event,
) -> None:
    """Put each part into `steps`, then ("end", None) or ("error", exception)."""
    source = make()
    end: tuple[str, Any] = ("end", None)
    try:
        for part in source:
            if cancelled.is_set():
                source.close()  # type: ignore[attr-defined]
                break
            steps.put(("part", part))
    except Exception as error:
        end = ("error", error)
    finally:
        connections.close_all()
        steps.put(end)
