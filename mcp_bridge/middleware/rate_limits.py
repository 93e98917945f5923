"""Rate limits at /mcp: by token, by user, and for refused tokens by address.

The address limit counts refused tokens only. One hosted client's address, which many
users share, therefore locks nobody out. Without VALKEY_URL this costs a few dictionary
look-ups, with it one round trip per limit. If the store is unavailable each process
counts by itself, because the tokens have been checked by then.
"""

from __future__ import annotations

import hashlib
import time
from functools import cache

from django.conf import settings
from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError

from accounts.http.client_address import rate_limit_prefix
from accounts.rate_limits.errors import RateLimited
from accounts.rate_limits.middleware import ADDRESS_FACTOR
from accounts.rate_limits.store import Backoff, limits_item, open_storage, redis_url
from accounts.rate_limits.window import PROCESS_WINDOWS, Limit, configured_limit
from accounts.tokens.principal import Principal
from mcp_bridge.http.responses import Response, json_error
from mcp_bridge.metrics import prometheus


class AsyncSharedStore:
    """The store that all workers count in, without blocking the event loop."""

    def __init__(self, url: str) -> None:
        async_url = f"async+{redis_url(url)}"
        store = open_storage(RedisStorage, async_url, implementation="redispy")
        self.limiter = SlidingWindowCounterRateLimiter(store)
        self.health = Backoff(prometheus.set_store_available)

    async def hit(self, key: str, limit: Limit) -> float:
        """Count one: 0 within the limit, else seconds to wait. Raises StorageError."""
        item = limits_item(limit)
        with self.health:
            if await self.limiter.hit(item, key):
                return 0.0
            return await self.retry_after(item, key)

    async def wait(self, key: str, limit: Limit) -> float:
        """The result of `hit` without counting. Raises StorageError."""
        item = limits_item(limit)
        with self.health:
            if await self.limiter.test(item, key):
                return 0.0
            return await self.retry_after(item, key)

    async def retry_after(self, item: RateLimitItemPerSecond, key: str) -> float:
        """Seconds until the window has room for one more."""
        stats = await self.limiter.get_window_stats(item, key)
        return max(1.0, stats.reset_time - time.time())


@cache
def async_shared_store(url: str) -> AsyncSharedStore:
    """The store at `url`; one per process."""
    return AsyncSharedStore(url)


async def count_message(key: str, limit: Limit | None) -> float:
    """Count one: 0 within the limit, else seconds to wait."""
    if limit is None:
        return 0.0
    if not settings.VALKEY_URL:
        return PROCESS_WINDOWS.hit(key, limit)
    try:
        return await async_shared_store(settings.VALKEY_URL).hit(key, limit)
    except StorageError:
        return PROCESS_WINDOWS.hit(key, limit)


async def peek(key: str, limit: Limit) -> float:
    """The result of `count_message` without counting."""
    if not settings.VALKEY_URL:
        return PROCESS_WINDOWS.wait(key, limit)
    try:
        return await async_shared_store(settings.VALKEY_URL).wait(key, limit)
    except StorageError:
        return PROCESS_WINDOWS.wait(key, limit)


async def admit(principal: Principal) -> None:
    """Count a message of this token and of its user. Raises RateLimited."""
    token, user = f"mcp token {principal.jti}", f"mcp user {principal.user_id}"
    wait = await count_message(token, configured_limit("LIMIT_MCP"))
    wait = wait or await count_message(user, configured_limit("LIMIT_MCP_USER"))
    if wait:
        raise RateLimited("Too many messages; retry later.", wait)


async def admit_refusal(raw: str, address: str) -> None:
    """Count a refused token and its address. Raises RateLimited.

    A token over its own limit does not count against the address: a client that repeats
    an expired token must not use up the share of its neighbours. An address over its
    limit is refused first, or each invented token would add a key.
    """
    limit = configured_limit("LIMIT_MCP_REFUSED")
    if limit is None:
        return
    source, wide = (
        f"mcp refused from {rate_limit_prefix(address)}",
        limit.times(ADDRESS_FACTOR),
    )
    token = hashlib.sha256(raw.encode()).hexdigest()[:32]
    wait = await peek(source, wide)
    wait = wait or await count_message(f"mcp refused {token}", limit)
    wait = wait or await count_message(source, wide)
    if wait:
        raise RateLimited("Too many requests with invalid tokens.", wait)


def too_many_requests(problem: RateLimited) -> Response:
    """429 with Retry-After (RFC 6585 4), or 503."""
    headers = {"retry-after": str(problem.wait)}
    return json_error(problem.status, problem.error, str(problem), **headers)
