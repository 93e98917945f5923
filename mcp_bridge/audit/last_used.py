"""LastUsedTracker: last use of tokens, written in batches, exact to a minute."""

from __future__ import annotations

import asyncio
import logging
import time

from django.db import Error as DatabaseError

from mcp_bridge.audit.bulk_insert import Use, update_last_used
from mcp_bridge.db import in_database

logger = logging.getLogger(__name__)

NOTED_EVERY = 60.0
"""Precision of a token's "last used": not every message rewrites its row."""
WRITTEN_AFTER = 0.5
AT_LEAST = 1_000
"""Tracked tokens from which outdated ones are removed."""


class LastUsedTracker:
    """The uses that this process has tracked, and those still to be written."""

    def __init__(self) -> None:
        self.noted: dict[str, float] = {}
        self.room = AT_LEAST
        self.waiting: list[Use] = []
        self.writing: asyncio.Task[None] | None = None

    def note(self, jti: str, address: str) -> None:
        """Queue a use of a token; returns without waiting for the write."""
        now = time.time()
        if now - self.noted.get(jti, 0.0) < NOTED_EVERY:
            return
        if len(self.noted) >= self.room:
            self.forget_old(now)
        self.noted[jti] = now
        self.waiting.append(Use(jti, now, address))
        if self.writing is None:
            self.writing = asyncio.create_task(self.later())

    def forget_old(self, now: float) -> None:
        """Remove entries older than NOTED_EVERY; rarely, because this reads all of
        them.
        """
        recent = {j: at for j, at in self.noted.items() if now - at < NOTED_EVERY}
        self.noted, self.room = recent, max(AT_LEAST, 2 * len(recent))

    async def later(self) -> None:
        """Write after a delay, so many uses share a statement."""
        await asyncio.sleep(WRITTEN_AFTER)
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
