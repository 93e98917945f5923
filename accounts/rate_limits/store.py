"""The store that all workers count in: Valkey or Redis (VALKEY_URL)."""

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
"""Seconds the shared store has to answer."""


RETRY_SECONDS = 2.0
"""Seconds after which a store that was away is asked again."""


def limits_item(limit: Limit) -> RateLimitItemPerSecond:
    """A limit as the library writes it."""
    return RateLimitItemPerSecond(limit.most, limit.span, namespace="portico")


class SharedStore:
    """The store all workers count in, and what is known of its health."""

    def __init__(self, url: str) -> None:
        store = open_storage(RedisStorage, redis_url(url))
        self.limiter = SlidingWindowCounterRateLimiter(store)
        self.health = Backoff()

    def hit(self, key: str, limit: Limit) -> float:
        """As Windows.hit. Raises StorageError while the store is away."""
        item = limits_item(limit)
        with self.health:
            return 0.0 if self.limiter.hit(item, key) else self.left(item, key)

    def wait(self, key: str, limit: Limit) -> float:
        """As Windows.wait. Raises StorageError while the store is away."""
        item = limits_item(limit)
        with self.health:
            return 0.0 if self.limiter.test(item, key) else self.left(item, key)

    def left(self, item: RateLimitItemPerSecond, key: str) -> float:
        """Seconds until one more fits."""
        reset = self.limiter.get_window_stats(item, key).reset_time
        return max(1.0, reset - time.time())


class Backoff:
    """Asks an absent store again only now and then, and says once that it is away."""

    def __init__(self) -> None:
        self.again_at = 0.0

    def __enter__(self) -> None:
        if time.monotonic() < self.again_at:
            raise StorageError(ConnectionError("away a moment ago"))

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, StorageError):
            if not self.again_at:
                logger.error("The store of the rate limits is away: %s", error)
            self.again_at = time.monotonic() + RETRY_SECONDS
        elif error is None and self.again_at:
            logger.warning("The store of the rate limits is back")
            self.again_at = 0.0


def redis_url(url: str) -> str:
    """Valkey speaks Redis' protocol; one client library serves both."""
    return re.sub(r"\Avalkey", "redis", url)


def open_storage(kind: Callable[..., Store], url: str, **options: Any) -> Store:
    """A storage of `limits`, told how long it may wait.

    `limits` looks up redis in sys.modules, and takes what another thread has imported
    half for a version too old; the import here waits until it is whole.
    """
    import_module("redis")
    options |= {
        "socket_timeout": STORE_TIMEOUT,
        "socket_connect_timeout": STORE_TIMEOUT,
    }
    return kind(url, wrap_exceptions=True, **options)


@cache
def shared_store(url: str) -> SharedStore:
    """The store at `url`, one per process."""
    return SharedStore(url)
