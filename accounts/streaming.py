"""Answers of any size in constant memory.

Under ASGI, Django reads a synchronous iterator to its end before it sends a byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from django.db import connections


async def in_steps(make: Callable[[], Iterator[bytes]]) -> AsyncIterator[bytes]:
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
