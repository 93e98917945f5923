"""Answers of any size in constant memory, and work that no reader holds up.

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
    """The parts of a synchronous generator, made on one thread of its own.

    One thread, for a database connection and its cursor belong to the thread that
    opened them. It is closed when the answer ends or its reader goes away.
    """
    loop = asyncio.get_running_loop()
    own = ThreadPoolExecutor(max_workers=1, thread_name_prefix="portico-stream")
    source = make()

    def finish() -> None:
        source.close()  # type: ignore[attr-defined]
        connections.close_all()

    try:
        while (part := await loop.run_in_executor(own, next, source, None)) is not None:
            yield part
    finally:
        own.submit(finish)
        own.shutdown(wait=False)


def run_on_thread(make: Callable[[], Iterator[T]]) -> Iterator[T]:
    """What a generator yields, which works through on a thread of its own.

    A transaction that is open in it does not wait for who reads its progress. Who
    leaves early closes it at its next step, so that it rolls back.
    """
    steps: SimpleQueue[tuple[str, Any]] = SimpleQueue()
    left = Event()
    worker = Thread(target=_run_into_queue, args=(make, steps, left))
    worker.start()
    try:
        while (step := steps.get())[0] == "part":
            yield step[1]
        if step[0] == "error":
            raise step[1]
    finally:
        left.set()
        worker.join()


def _run_into_queue(
    make: Callable[[], Iterator[T]], steps: SimpleQueue[tuple[str, Any]], left: Event
) -> None:
    """Put each part, then how it ended, into `steps`."""
    source = make()
    end: tuple[str, Any] = ("end", None)
    try:
        for part in source:
            if left.is_set():
                source.close()  # type: ignore[attr-defined]
                break
            steps.put(("part", part))
    except Exception as error:
        end = ("error", error)
    finally:
        connections.close_all()
        steps.put(end)
