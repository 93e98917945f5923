"""Limits of one worker for each upstream server: places, rate and circuit breaker."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mcp.shared.exceptions import MCPError

from accounts.rate_limits.window import PROCESS_WINDOWS, Limit
from mcp_bridge.access.catalogue import Upstream
from mcp_bridge.metrics import prometheus
from mcp_bridge.upstreams import exchange
from mcp_bridge.upstreams.problems import UpstreamProblem

FAILURES = 5
"""Failures in a row that open the breaker."""
PAUSE, LONGEST_PAUSE = 5.0, 60.0
"""Seconds until the first trial; they double with each trial that fails."""
PROBE_SECONDS = 5.0

Counter = Callable[[str, Limit], Awaitable[float]]
"""Counts one: 0 within the limit, else seconds to wait."""


async def count_here(key: str, limit: Limit) -> float:
    """Count in this process."""
    return PROCESS_WINDOWS.hit(key, limit)


@dataclass
class Counting:
    """Where calls per minute are counted; the application shares it with others."""

    count: Counter = count_here


COUNTING = Counting()


@dataclass(slots=True)
class Breaker:
    """Closed, open until `open_until`, or half open during one trial."""

    failures: int = 0
    pause: float = 0.0
    open_until: float = 0.0
    trying: bool = False

    @property
    def is_open(self) -> bool:
        return self.pause > 0

    def failed(self) -> None:
        """Count a failure; open after FAILURES in a row, or after a trial."""
        self.failures += 1
        if self.failures >= FAILURES:
            doubled = min(self.pause * 2 or PAUSE, LONGEST_PAUSE)
            self.pause = doubled
            # With jitter, so that workers do not try at the same moment.
            self.open_until = time.monotonic() + doubled * random.uniform(0.8, 1.2)  # noqa: S311

    def worked(self) -> None:
        """Close it."""
        self.failures, self.pause = 0, 0.0


@dataclass(slots=True)
class Usage:
    """What one worker knows of one server: calls in progress, and its breaker."""

    running: int
    breaker: Breaker


_usage: dict[tuple[int | None, str], Usage] = {}
"""By server and URL, so that a corrected URL has no failures."""


def usage_of(upstream: Upstream) -> Usage:
    """The usage of this server at its present URL."""
    key = upstream.pk, upstream.row.url
    found = _usage.get(key)
    if found is None:
        found = _usage[key] = Usage(0, Breaker())
    return found


@asynccontextmanager
async def admitted(upstream: Upstream) -> AsyncIterator[None]:
    """Hold one of the server's places. Raises UpstreamProblem if it gets no call now.

    The problem that ends the block counts for the breaker.
    """
    usage = usage_of(upstream)
    breaker = usage.breaker
    if breaker.is_open:
        await try_again(upstream, breaker)
    if usage.running >= upstream.row.max_concurrency:
        prometheus.count_limit_exceeded("calls of an upstream server")
        text = f"The upstream server {upstream.name} has too many calls. Try again."
        raise UpstreamProblem("busy", text)
    usage.running += 1
    try:
        if upstream.row.calls_per_minute is not None:
            await count_call(upstream, upstream.row.calls_per_minute)
        yield
        if breaker.failures:
            breaker.worked()
    except UpstreamProblem as problem:
        if problem.breaks:
            breaker.failed()
        elif breaker.failures and problem.code not in ("busy", "credential"):
            breaker.worked()
        raise
    finally:
        usage.running -= 1


async def count_call(upstream: Upstream, most: int) -> None:
    """Count a call of any user. Raises UpstreamProblem over the limit."""
    wait = await COUNTING.count(f"upstream {upstream.pk}", Limit(most, 60))
    if wait:
        prometheus.count_limit_exceeded("calls of an upstream server")
        text = (
            f"The upstream server {upstream.name} allows {most} calls per minute. "
            f"Try again in {max(1, round(wait))} s."
        )
        raise UpstreamProblem("busy", text)


async def try_again(upstream: Upstream, breaker: Breaker) -> None:
    """Probe a server that is due for a trial; one call at a time does so.

    Raises UpstreamProblem while the server does not work.
    """
    left = breaker.open_until - time.monotonic()
    if left > 0 or breaker.trying:
        text = (
            f"The upstream server {upstream.name} failed {breaker.failures} times in a "
            f"row. Try again in {max(1, round(left))} s."
        )
        raise UpstreamProblem("paused", text)
    breaker.trying = True
    try:
        await probe(upstream)
        breaker.worked()
    except UpstreamProblem as problem:
        if problem.breaks:
            breaker.failed()
            raise
        breaker.worked()
    finally:
        breaker.trying = False


async def probe(upstream: Upstream) -> None:
    """Send a request of MCP; a GET would fail at servers that work.

    Any answer will do. Raises UpstreamProblem.
    """
    modern = exchange.known_protocol(upstream) == exchange.MODERN
    method = "server/discover" if modern else "tools/list"
    try:
        await exchange.request(upstream, method, {}, seconds=PROBE_SECONDS)
    except MCPError:
        return
