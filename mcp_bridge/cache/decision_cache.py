"""DecisionCache: principals and rules in this worker, validated on every request.

Verified tokens, their principals and the catalogue are cached. Each request first reads
the change log (`readers/__init__.py`) and evicts what changed (`watched_tables.py`).
There is no time-to-live and no broadcast.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

from django.db import DatabaseError

from accounts.tokens.principal import Principal, authenticate
from mcp_bridge.access.catalogue import Catalogue, read_catalogue
from mcp_bridge.cache.principal_cache import (
    PrincipalCache,
    concerns,
    concerns_catalogue,
)
from mcp_bridge.cache.readers import open_reader
from mcp_bridge.cache.readers.base import (
    UNTRACKED,
    ChangeReader,
    ChangeRow,
    DatabaseUnavailable,
    LogPosition,
)
from mcp_bridge.cache.triggers.install import TriggerState, state
from mcp_bridge.cache.watched_tables import ChangeScope
from mcp_bridge.db import in_database
from mcp_bridge.metrics import service

logger = logging.getLogger(__name__)

MAX_PRINCIPALS = 20_000
"""Principals that a worker caches."""
MAX_CATCH_UP = 1_000
"""Changes that a worker applies one by one; after more it clears the cache."""
VERIFY_EVERY = 5.0
"""Seconds between two checks that the triggers exist."""
EVICT_EVERY = 300.0
"""Minimum seconds after which an unused principal is evicted."""


SESSION_KINDS = (ChangeScope.SESSION, ChangeScope.ALL)
session_notices: list[Callable[[str], object]] = []
"""Called with the key of each session that ended; empty if any may have ended."""


class Mark(NamedTuple):
    """The log position and cache generation of a moment."""

    position: LogPosition
    generation: int


class DecisionCache:
    """One worker's cache, and the log position up to which it is valid."""

    def __init__(self, source: ChangeReader, max_size: int = MAX_PRINCIPALS) -> None:
        self.reader = source
        self.principals = PrincipalCache(max_size)
        self.catalogue: Catalogue | None = None
        self.position = UNTRACKED
        self.trusted = False
        self.marks: tuple[Any, ...] = ()
        self.generation = 0
        self.recent: deque[ChangeRow] = deque(maxlen=MAX_CATCH_UP)
        self.loads: dict[bytes, tuple[Mark, asyncio.Task[Any]]] = {}

    async def resolve(self, raw: str) -> tuple[Principal, Catalogue]:
        """The principal of the raw token and the rules, both as committed now.

        Raises accounts.tokens.principal.Unauthenticated; database errors propagate.
        """
        await self.check_for_changes()
        return await self.resolve_known(raw)

    async def resolve_known(self, raw: str) -> tuple[Principal, Catalogue]:
        """As `resolve`, as committed at the last check for changes."""
        if not self.caches:
            return await in_database(read_uncached, raw)
        key = hashlib.sha256(raw.encode()).digest()
        principal = self.principals.get(key)
        if principal is None or principal.valid_until <= time.time():
            principal = await self.load_principal(key, raw)
        catalogue = self.catalogue
        if catalogue is None:
            catalogue = await self.load_catalogue()
        return principal, catalogue

    @property
    def caches(self) -> bool:
        """Whether the changes are tracked, so that rows may be cached."""
        return self.trusted and bool(self.position.epoch)

    async def mark(self) -> Mark | None:
        """A value that differs as soon as anything has changed; None without cache.

        Raises DatabaseUnavailable.
        """
        await self.check_for_changes()
        return self.current_mark() if self.caches else None

    async def check_for_changes(self) -> None:
        """Evict what has changed since the last check. Raises DatabaseUnavailable."""
        began = perf_counter()
        try:
            now = await self.reader.current_position()
            service.observe_change_read(began)
            if now != self.position:
                await self.catch_up(now)
        except DatabaseUnavailable:
            self.clear(UNTRACKED)
            raise

    async def catch_up(self, now: LogPosition) -> None:
        """Apply the changes up to `now`; clear the cache if they are incomplete.

        Positions arrive in the order of their queries. A number below the known one
        therefore means another database, not a late result.
        """
        gap = now.number - self.position.number
        if now.epoch != self.position.epoch or not 0 <= gap <= MAX_CATCH_UP:
            self.clear(now)
            return
        while self.position.epoch == now.epoch and self.position.number < now.number:
            start = self.position
            changes = await self.reader.changes_between(start, now)
            if self.position != start:
                continue  # another request has applied them meanwhile
            if len(changes) != now.number - start.number:
                self.clear(now)
                return
            for change in changes:
                self.evict(change)
            self.position = now

    def evict(self, change: ChangeRow) -> None:
        """Evict what one change concerns."""
        self.recent.append(change)
        if change.kind in SESSION_KINDS:
            for notice in session_notices:
                notice(change.key)
        self.principals.evict(change)
        if concerns_catalogue(change):
            self.catalogue = None

    def clear(self, now: LogPosition) -> None:
        """Clear the cache; loads in flight are not cached either."""
        self.generation += 1
        self.principals.clear()
        self.catalogue = None
        self.recent.clear()
        self.position = now
        for notice in session_notices:
            notice("")

    async def load_principal(self, key: bytes, raw: str) -> Principal:
        """Read a token's rows; requests at the same position share the load."""

        async def work(load: Mark) -> Principal:
            principal = await in_database(authenticate, raw)
            if self.still_valid(load, lambda change: concerns(change, principal)):
                self.principals.put(key, principal)
            return principal

        principal: Principal = await self.single_flight(key, work)
        if principal.valid_until <= time.time():
            principal = await in_database(authenticate, raw)
        return principal

    async def load_catalogue(self) -> Catalogue:
        """Read all rules; requests at the same position share the load."""

        async def work(load: Mark) -> Catalogue:
            catalogue = await in_database(read_catalogue)
            if self.still_valid(load, concerns_catalogue):
                self.catalogue = catalogue
            return catalogue

        catalogue: Catalogue = await self.single_flight(b"", work)
        return catalogue

    async def single_flight(self, key: bytes, work: Callable[[Mark], Any]) -> Any:
        """The result of `work`, single flight: joined only if nothing changed since."""
        load, task = self.loads.get(key, (None, None))
        if task is None or load != self.current_mark():
            load = self.current_mark()
            task = asyncio.create_task(work(load))
            self.loads[key] = load, task
            task.add_done_callback(partial(self.finish_load, key))
        return await asyncio.shield(task)

    def current_mark(self) -> Mark:
        """The position and generation of now, such as of a load that starts."""
        return Mark(self.position, self.generation)

    def finish_load(self, key: bytes, task: asyncio.Task[Any]) -> None:
        """Remove the finished load.

        This retrieves its exception, so asyncio does not log one that nobody awaits.
        """
        if not task.cancelled():
            task.exception()
        if key in self.loads and self.loads[key][1] is task:
            del self.loads[key]

    def still_valid(self, load: Mark, concerned: Callable[[ChangeRow], bool]) -> bool:
        """Whether the load saw every change that concerns it."""
        missed = self.position.number - load.position.number
        if load.generation != self.generation or missed > MAX_CATCH_UP:
            return False
        later = (c for c in self.recent if c.number > load.position.number)
        return not any(concerned(change) for change in later)

    async def verify(self) -> None:
        """Check that every trigger exists; without one nothing is cached.

        Triggers that were disabled and enabled again clear the cache. A replaced
        database file closes the reader, which then refuses.
        """
        if self.reader.replaced():
            self.clear(UNTRACKED)
            self.reader.close()
        try:
            triggers: TriggerState = await in_database(state)
        except DatabaseError as error:
            triggers = TriggerState([str(error)], [], ())
        trusted = not (triggers.missing or triggers.outside)
        if self.trusted and not trusted:
            log_disabled_caching(triggers)
        if trusted != self.trusted or triggers.marks != self.marks:
            self.clear(UNTRACKED)
        self.trusted, self.marks = trusted, triggers.marks

    async def keep_verifying(self) -> None:
        """Verify the triggers and evict idle principals while the server runs."""
        aged = time.monotonic()
        while True:
            await asyncio.sleep(VERIFY_EVERY)
            await self.verify()
            if time.monotonic() - aged >= EVICT_EVERY:
                aged = time.monotonic()
                self.principals.evict_idle()


def log_disabled_caching(triggers: TriggerState) -> None:
    """Log why caching is disabled."""
    for table in triggers.outside:
        logger.error("Changes bypass the triggers (%s); caching is disabled.", table)
    if triggers.missing:
        logger.error(
            "Change-tracking trigger missing (%s); caching is disabled. "
            "Run `manage.py migrate`.",
            triggers.missing[0],
        )


decision_cache: DecisionCache | None = None
"""This worker's cache; None if no server runs, and then nothing is cached."""


@asynccontextmanager
async def caching_decisions() -> AsyncIterator[DecisionCache]:
    """Cache decisions until the server stops."""
    global decision_cache
    decision_cache = DecisionCache(open_reader())
    await decision_cache.verify()
    if not decision_cache.trusted:
        logger.error("Caching is disabled: changes are not tracked. Run doctor.")
    with suppress(DatabaseUnavailable):
        # The first read records which file is open, so a later replacement shows.
        await decision_cache.check_for_changes()
    upkeep = asyncio.create_task(decision_cache.keep_verifying())
    try:
        yield decision_cache
    finally:
        upkeep.cancel()
        with suppress(asyncio.CancelledError):
            await upkeep
        decision_cache.reader.close()
        decision_cache = None


def tracks_changes() -> bool:
    """Whether this worker learns of changes, so that what it has read stays valid."""
    return decision_cache is not None and decision_cache.caches


async def resolve_token(raw: str) -> tuple[Principal, Catalogue]:
    """The principal of the raw token and the rules, as committed at this call.

    Raises accounts.tokens.principal.Unauthenticated; database errors propagate.
    """
    if decision_cache is None:
        return await in_database(read_uncached, raw)
    return await decision_cache.resolve(raw)


async def resolve_known(raw: str) -> tuple[Principal, Catalogue]:
    """As `resolve_token`, as committed at this worker's last check for changes."""
    if decision_cache is None:
        return await in_database(read_uncached, raw)
    return await decision_cache.resolve_known(raw)


async def change_mark() -> Mark | None:
    """Check for changes: `DecisionCache.mark`. Raises DatabaseUnavailable."""
    return None if decision_cache is None else await decision_cache.mark()


def read_uncached(raw: str) -> tuple[Principal, Catalogue]:
    """The principal and the rules from the rows, without the cache."""
    return authenticate(raw), read_catalogue()


async def database_unavailable() -> bool:
    """Whether a read that starts now fails; False if no server runs."""
    if decision_cache is None:
        return False
    try:
        await decision_cache.check_for_changes()
    except DatabaseUnavailable:
        return True
    return False


def known_replaced() -> bool:
    """Whether a check has found that the file was replaced; asks no file system."""
    reader = decision_cache.reader if decision_cache is not None else None
    return bool(getattr(reader, "was_replaced", False))


def replaced() -> bool:
    """Whether the database file was replaced since the server started."""
    return decision_cache is not None and decision_cache.reader.replaced()
