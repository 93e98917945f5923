"""LastUsedTracker: last use of tokens, written in batches, exact to a minute."""

from __future__ import annotations

import asyncio
import logging
import time

from django.db import Error as DatabaseError

from mcp_bridge.audit.bulk_insert import Use, update_last_used
from mcp_bridge.db import in_database

logger = logging.getLogger(__name__)

PRECISION = 60.0
"""Precision of a token's "last used": not every message rewrites its row."""
WRITE_DELAY = 0.5
MIN_TRACKED = 1_000
"""Tracked tokens from which outdated ones are removed."""


class LastUsedTracker:
    """The uses that this process has tracked, and those still to be written."""

    def __init__(self) -> None:
        self.tracked: dict[str, float] = {}
        self.max_tracked = MIN_TRACKED
        self.waiting: list[Use] = []
        self.writing: asyncio.Task[None] | None = None

    def track(self, jti: str, address: str) -> None:
        """Queue a use of a token; returns without waiting for the write."""
        now = time.time()
        if now - self.tracked.get(jti, 0.0) < PRECISION:
            return
        if len(self.tracked) >= self.max_tracked:
            self.evict_old(now)
        self.tracked[jti] = now
        self.waiting.append(Use(jti, now, address))
        if self.writing is None:
            self.writing = asyncio.create_task(self.flush_later())

    def evict_old(self, now: float) -> None:
        """Remove entries older than PRECISION; rarely, because this reads all of
        them.
        """
        recent = {j: at for j, at in self.tracked.items() if now - at < PRECISION}
        self.tracked, self.max_tracked = recent, max(MIN_TRACKED, 2 * len(recent))

    async def flush_later(self) -> None:
        """Write after a delay, so many uses share a statement."""
        await asyncio.sleep(WRITE_DELAY)
        await self.flush()

    async def flush(self) -> None:
        """Write the queue; a failure is logged and its uses are dropped."""
        uses, self.waiting, self.writing = self.waiting, [], None
        try:
            if uses:
                await in_database(update_last_used, uses)
        except DatabaseError as error:
            logger.warning("Last uses of tokens were not written: %s", error)

    async def close(self) -> None:
        """Write the queue now."""
        if self.writing is not None:
            self.writing.cancel()
        await self.flush()
