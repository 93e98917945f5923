"""How often /mcp may be called: by a token, by its person, and with wrong tokens.

The address comes last and counts refused tokens only, so that one hosted client's
address, which many people share, locks nobody out. Without VALKEY_URL this costs a
few dictionary look-ups; with it one round trip per limit. While the store is away
each process counts for itself: the tokens have been judged by then.
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


class AsyncSharedStore:
    """The store all workers count in, asked without waiting in the event loop."""

    def __init__(self, url: str) -> None:
        there = f"async+{redis_url(url)}"
        store = open_storage(RedisStorage, there, implementation="redispy")
        self.limiter = SlidingWindowCounterRateLimiter(store)
        self.health = Backoff()

    async def hit(self, key: str, limit: Limit) -> float:
        """0 within the limit, else seconds to wait. Raises StorageError when away."""
        item = limits_item(limit)
        with self.health:
            if await self.limiter.hit(item, key):
                return 0.0
            return await self.left(item, key)

    async def wait(self, key: str, limit: Limit) -> float:
        """What `hit` would say; counts nothing. Raises StorageError when away."""
        item = limits_item(limit)
        with self.health:
            if await self.limiter.test(item, key):
                return 0.0
            return await self.left(item, key)

    async def left(self, item: RateLimitItemPerSecond, key: str) -> float:
        """Seconds until one more fits."""
        stats = await self.limiter.get_window_stats(item, key)
        return max(1.0, stats.reset_time - time.time())


@cache
def async_shared_store(url: str) -> AsyncSharedStore:
    """The store at `url`, one per process."""
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


async def room(key: str, limit: Limit) -> float:
    """What `counted` would say; counts nothing."""
    if not settings.VALKEY_URL:
        return PROCESS_WINDOWS.wait(key, limit)
    try:
        return await async_shared_store(settings.VALKEY_URL).wait(key, limit)
    except StorageError:
        return PROCESS_WINDOWS.wait(key, limit)


async def admit(principal: Principal) -> None:
    """Count a message of this token and of its person. Raises TooMany."""
    token, user = f"mcp token {principal.jti}", f"mcp user {principal.user_id}"
    wait = await count_message(token, configured_limit("LIMIT_MCP"))
    wait = wait or await count_message(user, configured_limit("LIMIT_MCP_USER"))
    if wait:
        raise RateLimited("Too many messages; wait a little.", wait)


async def admit_refusal(raw: str, address: str) -> None:
    """Count a token that does not count, and its address. Raises TooMany.

    Tokens over their limit do not weigh on the address: a client that repeats an
    ended token must not use up what its neighbours have. But an address over its
    limit is refused before that, or each token it invents would add a key.
    """
    limit = configured_limit("LIMIT_MCP_REFUSED")
    if limit is None:
        return
    where, wide = (
        f"mcp refused from {rate_limit_prefix(address)}",
        limit.times(ADDRESS_FACTOR),
    )
    token = hashlib.sha256(raw.encode()).hexdigest()[:32]
    wait = await room(where, wide)
    wait = wait or await count_message(f"mcp refused {token}", limit)
    wait = wait or await count_message(where, wide)
    if wait:
        raise RateLimited("Too many requests with tokens that do not count.", wait)


def too_many_requests(problem: RateLimited) -> Response:
    """429 with Retry-After (RFC 6585 4), or 503."""
    headers = {"retry-after": str(problem.wait)}
    return json_error(problem.status, problem.error, str(problem), **headers)
