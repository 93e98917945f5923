"""Last use of tokens: noted in passing, written together, exact to a minute."""

from __future__ import annotations

import asyncio
import logging
import time

from django.db import Error as DatabaseError

from mcp_bridge.audit.bulk_insert import Use, update_last_used
from mcp_bridge.db import in_database

logger = logging.getLogger(__name__)

NOTED_EVERY = 60.0
"""How exact a token's "last used" is: a row is not rewritten for every message."""
WRITTEN_AFTER = 0.5
AT_LEAST = 1_000
"""Tokens noted before those that no longer matter are looked for."""


class LastUsedTracker:
    """What this process has noted, and what is still to be written."""

    def __init__(self) -> None:
        self.noted: dict[str, float] = {}
        self.room = AT_LEAST
        self.waiting: list[Use] = []
        self.writing: asyncio.Task[None] | None = None

    def note(self, jti: str, address: str) -> None:
        """A token is being used; nobody waits for that to be written."""
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
        """Drop what is noted anew anyhow; seldom, for all are looked at."""
        young = {j: at for j, at in self.noted.items() if now - at < NOTED_EVERY}
        self.noted, self.room = young, max(AT_LEAST, 2 * len(young))

    async def later(self) -> None:
        """Write after a while, so that many go together."""
        await asyncio.sleep(WRITTEN_AFTER)
        await self.flush()

    async def flush(self) -> None:
        """Write what has gathered; a failure costs accuracy and is told."""
        uses, self.waiting, self.writing = self.waiting, [], None
        try:
            if uses:
                await in_database(update_last_used, uses)
        except DatabaseError as error:
            logger.warning("Last uses were not noted: %s", error)

    async def close(self) -> None:
        """Write what waits, now."""
        if self.writing is not None:
            self.writing.cancel()
        await self.flush()
