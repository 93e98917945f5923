"""How much one person, and all together, may have open at /mcp in this process.

Rates (rate_limits.py) bound how often something begins, these how much of it goes on.
Who has too much open is asked to wait; nobody else notices.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from django.conf import settings

from accounts.rate_limits.errors import RateLimited
from mcp_bridge.metrics import prometheus

T = TypeVar("T")

LARGE_BODY = 16 * 1024
"""Bytes from which a body that was here at once is counted."""
THREADS_EACH = 20
"""Synchronous tools of one person that run at once: half of the SDK's threads (40)."""


class ConcurrencyExceeded(RateLimited):
    """All together have too much open."""

    status = 503
    error = "temporarily_unavailable"


class ConcurrencyLimit:
    """Amounts by person, with a most for each and for all of them."""

    def __init__(self, what: str, each: str, everybody: str, wait: float) -> None:
        self.what, self.each, self.everybody, self.wait = what, each, everybody, wait
        """A word for the answer and the metrics, two settings, seconds to wait."""
        self.amounts: dict[int, int] = {}
        self.total = 0

    def enter(self, user_id: int, amount: int = 1) -> None:
        """Take an amount. Raises TooMany or Full."""
        mine = self.amounts.get(user_id, 0) + amount
        if mine > getattr(settings, self.each):
            prometheus.over_bound(self.what)
            raise RateLimited(f"You have too many {self.what} open.", self.wait)
        if self.total + amount > getattr(settings, self.everybody):
            prometheus.over_bound(self.what)
            raise ConcurrencyExceeded(f"Too many {self.what} are open.", self.wait)
        self.amounts[user_id] = mine
        self.total += amount

    def leave(self, user_id: int, amount: int = 1) -> None:
        """Give it back."""
        left = self.amounts[user_id] - amount
        if left:
            self.amounts[user_id] = left
        else:
            del self.amounts[user_id]
        self.total -= amount


CALLS = ConcurrencyLimit("calls", "MAX_CALLS_PER_USER", "MAX_CALLS", 1.0)
STREAMS = ConcurrencyLimit("streams", "MAX_STREAMS_PER_USER", "MAX_STREAMS", 10.0)
BODIES = ConcurrencyLimit("bytes of bodies", "MAX_BODIES_PER_USER", "MAX_BODIES", 1.0)
LISTENING = frozenset({"stream/open", "subscriptions/listen"})
"""Methods whose answer is a stream that stays open."""


class Holding:
    """What one message holds of the bounds. Making one raises TooMany."""

    __slots__ = ("bound", "bytes", "user_id")

    def __init__(self, user_id: int) -> None:
        CALLS.enter(user_id)
        self.user_id, self.bound, self.bytes = user_id, CALLS, 0

    def grow(self, size: int) -> None:
        """Hold so many bytes more. Raises TooMany."""
        BODIES.enter(self.user_id, size)
        self.bytes += size

    def listen(self) -> None:
        """It is a stream that stays open, not a call. Raises TooMany."""
        STREAMS.enter(self.user_id)
        self.bound = STREAMS
        CALLS.leave(self.user_id)

    def end(self) -> None:
        """Give everything back."""
        self.bound.leave(self.user_id)
        if self.bytes:
            BODIES.leave(self.user_id, self.bytes)


class Turns:
    """Who runs a synchronous tool now; those over their share wait for their own.

    The SDK has one queue for all: somebody with forty slow calls would stop everybody.
    """

    def __init__(self, each: int) -> None:
        self.each = each
        self.running: dict[int, int] = {}
        self.waiting: dict[int, deque[asyncio.Future[None]]] = {}

    async def enter(self, user_id: int) -> None:
        """Wait until one of the person's turns is free."""
        running = self.running.get(user_id, 0)
        if running < self.each:
            self.running[user_id] = running + 1
            return
        turn = asyncio.get_running_loop().create_future()
        self.waiting.setdefault(user_id, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # handed over at that very moment
                self.leave(user_id)
            raise

    def of(self, user_id: int) -> Turn:
        """A turn of the person's, to be entered with `async with`."""
        return Turn(self, user_id)

    def leave(self, user_id: int) -> None:
        """Hand the turn to the next of the person's calls."""
        line = self.waiting.get(user_id, deque())
        while line:
            turn = line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.waiting.pop(user_id, None)
        if self.running[user_id] > 1:
            self.running[user_id] -= 1
        else:
            del self.running[user_id]


class Turn:
    """One turn, held until its work ends in the thread.

    A call that is cancelled leaves its thread running: were its turn free at once, a
    person who calls and leaves could take any number of threads.
    """

    def __init__(self, turns: Turns, user_id: int) -> None:
        self.turns, self.user_id = turns, user_id
        self.loop = asyncio.get_running_loop()
        self.started = self.left = False

    async def __aenter__(self) -> Turn:
        await self.turns.enter(self.user_id)
        return self

    async def __aexit__(self, *error: object) -> None:
        if not self.started:
            self.leave()

    def kept_by(self, work: Callable[[], T]) -> Callable[[], T]:
        """`work` for a thread, which gives the turn back."""

        def run() -> T:
            self.started = True
            try:
                return work()
            finally:
                with suppress(RuntimeError):  # the server has stopped meanwhile
                    self.loop.call_soon_threadsafe(self.leave)

        return run

    def leave(self) -> None:
        """Give it back, once."""
        if not self.left:
            self.left = True
            self.turns.leave(self.user_id)


TURNS = Turns(THREADS_EACH)
