"""Discovers upstream servers from time to time, while the server runs."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from django.conf import settings
from django.db import DatabaseError
from django.db.models import Q
from django.utils import timezone

from mcp_bridge.db import in_database
from mcp_bridge.models import UpstreamServer
from mcp_bridge.upstreams import discovery
from mcp_bridge.upstreams.exchange import close_idle_sessions, close_sessions
from mcp_bridge.upstreams.http_client import close_clients
from mcp_bridge.upstreams.listening import Listeners
from mcp_bridge.upstreams.problems import UpstreamProblem

logger = logging.getLogger(__name__)

AT_ONCE = 4
"""Servers that one worker discovers at the same time."""
LONGEST_WAIT = 30.0
"""Seconds between two looks for servers that are due."""


@asynccontextmanager
async def discovering() -> AsyncIterator[None]:
    """Discover servers that are due, until the block ends; then close connections."""
    tasks = [asyncio.create_task(keep_discovering())]
    if settings.UPSTREAM_DISCOVERY_INTERVAL:
        tasks.append(asyncio.create_task(Listeners(discover_one).run()))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        await close_sessions()
        await close_clients()


async def keep_discovering() -> None:
    """Look for due servers, with jitter, so that workers take turns."""
    every = settings.UPSTREAM_DISCOVERY_INTERVAL
    wait = min(LONGEST_WAIT, every / 4) if every else LONGEST_WAIT
    while True:
        await asyncio.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311
        try:
            await close_idle_sessions()
            if every:
                await discover_due(every)
        except DatabaseError as error:
            logger.info("Upstream servers were not discovered: %s", error)
        except Exception:
            logger.exception("Upstream servers were not discovered")


async def discover_due(every: float) -> None:
    """Discover each enabled server whose last check is older than `every` seconds."""
    due = await in_database(due_servers, every)
    random.shuffle(due)
    places = asyncio.Semaphore(AT_ONCE)

    async def one(server: UpstreamServer) -> None:
        async with places:
            await discover_one(server)

    await asyncio.gather(*(one(server) for server in due))


def due_servers(every: float) -> list[UpstreamServer]:
    """Enabled servers that no process checked within `every` seconds."""
    before = timezone.now() - timedelta(seconds=every)
    unchecked = Q(status=None) | Q(status__checked_at=None)
    old = Q(status__checked_at__lt=before)
    return list(UpstreamServer.objects.filter(unchecked | old, enabled=True))


async def discover_one(server: UpstreamServer) -> None:
    """Discover a server in this event loop; a problem is stored and logged."""
    try:
        credential = await in_database(discovery.begin, server)
    except UpstreamProblem:  # another process is at it
        return
    upstream = discovery.as_upstream(server, credential)
    try:
        seen = await discovery.explore(upstream)
    except UpstreamProblem as problem:
        logger.warning("Upstream %s: %s", server.name, problem)
        await in_database(discovery.store_problem, server, problem)
        return
    counts = await in_database(discovery.store, server, seen)
    if any(counts.values()):
        logger.info("Upstream %s: %s", server.name, counts)
