"""What a connection keeps while it waits, in less memory.

An `asyncio.Event` and an empty `deque` take some 800 bytes each, and uvicorn makes two
and one for a connection. An idle stream keeps them for hours.
"""

from __future__ import annotations

import asyncio
from typing import Any


class SmallEvent:
    """What uvicorn uses of `asyncio.Event`."""

    __slots__ = ("waiters", "was_set")

    def __init__(self, was_set: bool = False) -> None:
        self.was_set = was_set
        self.waiters: list[asyncio.Future[None]] = []

    def is_set(self) -> bool:
        return self.was_set

    def set(self) -> None:
        """Wake all that wait."""
        self.was_set = True
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def clear(self) -> None:
        self.was_set = False

    async def wait(self) -> bool:
        """Wait until it is set. Returns True."""
        if self.was_set:
            return True
        waiter = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        try:
            await waiter
        finally:
            self.waiters.remove(waiter)
        return True


class Pipeline(list[Any]):
    """What uvicorn uses of the `deque` of requests that wait on a connection."""

    __slots__ = ()

    def appendleft(self, waiting: Any) -> None:
        self.insert(0, waiting)


def shrink_connection(protocol: Any) -> None:
    """Replace what uvicorn made for a new connection."""
    protocol.pipeline = Pipeline()
    protocol.flow._is_writable_event = SmallEvent(was_set=True)
