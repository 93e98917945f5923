"""File descriptors: use all that the system allows, and log when they run out.

Without a free descriptor the event loop resets new connections and says nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

logger = logging.getLogger(__name__)

WANTED = 65_536
CHECK_EVERY = 1.0
ALMOST_ALL = 0.9
"""The share of descriptors in use from which connections may fail at any moment."""
FOLDER = "/dev/fd"


def raise_limit() -> int:
    """Raise the soft limit as far as the hard limit allows; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS allows less than its hard limit.
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return soft


def used_descriptors(limit: int) -> int:
    """The descriptors in use; `limit` if none is left to count them with."""
    try:
        return len(os.listdir(FOLDER))
    except OSError:
        return limit


class DescriptorWatch:
    """Logs once when descriptors run out, and once when they are free again."""

    def __init__(self, limit: int) -> None:
        self.limit, self.short = limit, False

    def check(self) -> None:
        used = used_descriptors(self.limit)
        short = used >= self.limit * ALMOST_ALL
        if short and not self.short:
            logger.error(
                "%d of %d file descriptors are in use; new connections fail when none "
                "is left. Raise the limit (LimitNOFILE of the unit, or ulimit -n).",
                used,
                self.limit,
            )
        elif self.short and not short:
            logger.warning("%d of %d file descriptors are in use", used, self.limit)
        self.short = short

    async def run(self) -> None:
        while True:
            self.check()
            await asyncio.sleep(CHECK_EVERY)


@asynccontextmanager
async def watching_descriptors() -> AsyncIterator[None]:
    """Watch until the server stops."""
    limit = raise_limit()
    if limit == resource.RLIM_INFINITY or not os.path.isdir(FOLDER):
        yield
        return
    task = asyncio.create_task(DescriptorWatch(limit).run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
