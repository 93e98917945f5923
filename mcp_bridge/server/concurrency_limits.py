"""Limits on concurrent calls, streams and body bytes at /mcp, in this process.

Rate limits (rate_limits.py) count how often something starts; these limits count what
is still open. A user over a limit gets 429, and other users keep their share.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import TypeVar

from django.conf import settings

from accounts.rate_limits.errors import RateLimited
from mcp_bridge.metrics import prometheus

T = TypeVar("T")

LARGE_BODY = 16 * 1024
"""Bytes from which a body that arrived with its head counts against the limit."""
THREADS_PER_USER = 20
"""Synchronous tools that one user may run at once: half of the SDK's 40 threads."""


class ConcurrencyExceeded(RateLimited):
    """All users together have too much open."""

    status = 503
    error = "temporarily_unavailable"


class ConcurrencyLimit:
    """Amounts by user (or token), with a maximum for one and one for all.

    `name` is for errors and metrics, `per_user` and `in_total` are names of settings,
    `wait` is the Retry-After in seconds.
    """

    def __init__(self, name: str, per_user: str, in_total: str, wait: float) -> None:
        self.name, self.wait = name, wait
        self.per_user, self.in_total = per_user, in_total
        self.amounts: dict[Hashable, int] = {}
        self.total = 0

    def acquire(self, user_id: Hashable, amount: int = 1) -> None:
        """Add an amount. Raises RateLimited or ConcurrencyExceeded."""
        mine = self.amounts.get(user_id, 0) + amount
        if mine > getattr(settings, self.per_user):
            prometheus.count_limit_exceeded(self.name)
            raise RateLimited(f"You have too many {self.name} open.", self.wait)
        if self.total + amount > getattr(settings, self.in_total):
            prometheus.count_limit_exceeded(self.name)
            raise ConcurrencyExceeded(f"Too many {self.name} are open.", self.wait)
        self.amounts[user_id] = mine
        self.total += amount

    def release(self, user_id: Hashable, amount: int = 1) -> None:
        left = self.amounts[user_id] - amount
        if left:
            self.amounts[user_id] = left
        else:
            del self.amounts[user_id]
        self.total -= amount


CALLS = ConcurrencyLimit("calls", "MAX_CALLS_PER_USER", "MAX_CALLS", 1.0)
STREAMS = ConcurrencyLimit("streams", "MAX_STREAMS_PER_USER", "MAX_STREAMS", 10.0)
TOKEN_STREAMS = ConcurrencyLimit(
    "streams of one token", "MAX_STREAMS_PER_TOKEN", "MAX_STREAMS", 10.0
)
BODIES = ConcurrencyLimit("bytes of bodies", "MAX_BODIES_PER_USER", "MAX_BODIES", 1.0)
STREAM_METHODS = frozenset({"stream/open", "subscriptions/listen"})
"""Methods that are answered with a stream that stays open."""


class Reservation:
    """What one message counts against the limits. Creating one raises RateLimited."""

    __slots__ = ("limit", "bytes", "token", "user_id")

    def __init__(self, user_id: int) -> None:
        CALLS.acquire(user_id)
        self.user_id, self.limit, self.bytes = user_id, CALLS, 0
        self.token = ""

    def add_bytes(self, size: int) -> None:
        """Add bytes of the body. Raises RateLimited."""
        BODIES.acquire(self.user_id, size)
        self.bytes += size

    def count_as_stream(self, token: str = "") -> None:
        """Count the message as an open stream, not as a call. Raises RateLimited.

        `token` is the jti of its token, which has a smaller limit.
        """
        STREAMS.acquire(self.user_id)
        self.limit = STREAMS
        CALLS.release(self.user_id)
        if token:
            TOKEN_STREAMS.acquire(token)
            self.token = token

    def release(self) -> None:
        self.limit.release(self.user_id)
        if self.token:
            TOKEN_STREAMS.release(self.token)
        if self.bytes:
            BODIES.release(self.user_id, self.bytes)


class ThreadSlots:
    """Slots for synchronous tools, by user; a user over the share waits for a slot.

    The SDK has one thread queue for all users. Without slots, one user with forty slow
    calls would block every other user.
    """

    def __init__(self, per_user: int) -> None:
        self.per_user = per_user
        self.running: dict[int, int] = {}
        self.waiting: dict[int, deque[asyncio.Future[None]]] = {}

    async def acquire(self, user_id: int) -> None:
        """Wait until the user has a free slot."""
        running = self.running.get(user_id, 0)
        if running < self.per_user:
            self.running[user_id] = running + 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self.waiting.setdefault(user_id, deque()).append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # release() gave this slot to us meanwhile
                self.release(user_id)
            raise

    def slot(self, user_id: int) -> ThreadSlot:
        return ThreadSlot(self, user_id)

    def release(self, user_id: int) -> None:
        """Give the slot to the user's next waiting call."""
        queue = self.waiting.get(user_id, deque())
        while queue:
            waiter = queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.waiting.pop(user_id, None)
        if self.running[user_id] > 1:
            self.running[user_id] -= 1
        else:
            del self.running[user_id]


class ThreadSlot:
    """One slot, in use until its work ends in the thread.

    Cancelling a call does not stop its thread. If cancellation freed the slot, a user
    who calls and disconnects could occupy every thread.
    """

    def __init__(self, slots: ThreadSlots, user_id: int) -> None:
        self.slots, self.user_id = slots, user_id
        self.loop = asyncio.get_running_loop()
        self.started = self.left = False

    async def __aenter__(self) -> ThreadSlot:
        await self.slots.acquire(self.user_id)
        return self

    async def __aexit__(self, *error: object) -> None:
        if not self.started:
            self.release()

    def release_after(self, work: Callable[[], T]) -> Callable[[], T]:
        """`work` for a thread; it frees the slot when it ends."""

        def run() -> T:
            self.started = True
            try:
                return work()
            finally:
                with suppress(RuntimeError):  # the event loop is closed
                    self.loop.call_soon_threadsafe(self.release)

        return run

    def release(self) -> None:
        """Free the slot, at most once."""
        if not self.left:
            self.left = True
            self.slots.release(self.user_id)


THREAD_SLOTS = ThreadSlots(THREADS_PER_USER)
