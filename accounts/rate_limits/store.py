"""The store in which all workers count: Valkey or Redis (VALKEY_URL)."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, TypeVar

from limits import RateLimitItemPerSecond
from limits.errors import StorageError
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from accounts.rate_limits.window import Limit

logger = logging.getLogger(__name__)

Store = TypeVar("Store")

STORE_TIMEOUT = 1.0
"""Seconds until a connection or an answer of the store times out."""

RETRY_SECONDS = 2.0
"""Seconds between attempts to reach an unavailable store."""


def limits_item(limit: Limit) -> RateLimitItemPerSecond:
    """Convert a Limit into the type of the `limits` library."""
    return RateLimitItemPerSecond(limit.most, limit.span, namespace="portico")


class SharedStore:
    """Sliding windows in the shared store, behind a Backoff."""

    def __init__(self, url: str) -> None:
        store = open_storage(RedisStorage, redis_url(url))
        self.limiter = SlidingWindowCounterRateLimiter(store)
        self.health = Backoff()

    def hit(self, key: str, limit: Limit) -> float:
        """Like SlidingWindow.hit. Raises StorageError if the store is away."""
        item = limits_item(limit)
        with self.health:
            return 0.0 if self.limiter.hit(item, key) else self.seconds_left(item, key)

    def wait(self, key: str, limit: Limit) -> float:
        """Like SlidingWindow.wait. Raises StorageError if the store is away."""
        item = limits_item(limit)
        with self.health:
            return 0.0 if self.limiter.test(item, key) else self.seconds_left(item, key)

    def seconds_left(self, item: RateLimitItemPerSecond, key: str) -> float:
        """Return the seconds until the window resets, at least 1."""
        reset = self.limiter.get_window_stats(item, key).reset_time
        return max(1.0, reset - time.time())


class Backoff:
    """Skips an unavailable store for RETRY_SECONDS; logs each change of state.

    `on_change` gets whether the store is available.
    """

    def __init__(self, on_change: Callable[[bool], None] | None = None) -> None:
        self.retry_at = 0.0
        self.on_change = on_change or (lambda available: None)
        self.on_change(True)

    def __enter__(self) -> None:
        if time.monotonic() < self.retry_at:
            raise StorageError(ConnectionError("unavailable, waiting to retry"))

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, StorageError):
            if not self.retry_at:
                logger.error("The rate limit store is unavailable: %s", error)
                self.on_change(False)
            self.retry_at = time.monotonic() + RETRY_SECONDS
        elif error is None and self.retry_at:
            logger.warning("The rate limit store is available again")
            self.on_change(True)
            self.retry_at = 0.0


def redis_url(url: str) -> str:
    """Replace valkey:// by redis://; one client library serves both."""
    return re.sub(r"\Avalkey", "redis", url)


def open_storage(kind: Callable[..., Store], url: str, **options: Any) -> Store:
    """Open a storage of `limits` with timeouts.

    `limits` looks redis up in sys.modules. If another thread has imported only half of
    it, `limits` reports a version too old. The import here waits until it is complete.
    """
    import_module("redis")
    options |= {
        "socket_timeout": STORE_TIMEOUT,
        "socket_connect_timeout": STORE_TIMEOUT,
    }
    return kind(url, wrap_exceptions=True, **options)


@cache
def shared_store(url: str) -> SharedStore:
    """Return the store at `url`, one per process."""
    return SharedStore(url)


def answers(url: str) -> bool:
    """Whether the store at `url` answers; True if there is none."""
    return not url or bool(shared_store(url).limiter.storage.check())
