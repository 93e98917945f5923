"""Is what this worker remembers still true? Looked at once for every request.

Verified tokens, the principals behind them and the catalogue are remembered, but
nothing is used before a read made after the request arrived has shown that nothing
it depends on has changed (`readers/__init__.py`, `watched_tables.py`). No time-to-live,
no broadcast.
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
from mcp_bridge.db import in_database

logger = logging.getLogger(__name__)

REMEMBERED = 20_000
"""Principals a worker remembers."""
CAUGHT_UP = 1_000
"""Changes a worker reads one by one; after more it forgets everything."""
VERIFY_EVERY = 5.0
"""Seconds between two looks whether the triggers are still there."""
AGED_EVERY = 300.0
"""Seconds after which a principal that nobody asked for is forgotten, at least."""


class Load(NamedTuple):
    """What was known when rows began to be read."""

    point: LogPosition
    generation: int


class DecisionCache:
    """What one worker remembers, and the point up to which it is true."""

    def __init__(self, source: ChangeReader, most: int = REMEMBERED) -> None:
        self.reader = source
        self.principals = PrincipalCache(most)
        self.catalogue: Catalogue | None = None
        self.point = UNTRACKED
        self.trusted = False
        self.marks: tuple[Any, ...] = ()
        self.generation = 0
        self.recent: deque[ChangeRow] = deque(maxlen=CAUGHT_UP)
        self.loads: dict[bytes, tuple[Load, asyncio.Task[Any]]] = {}

    async def resolve(self, raw: str) -> tuple[Principal, Catalogue]:
        """Who `raw` stands for, and the rules, as they are now.

        Raises accounts.tokens.principal.Unauthenticated; database errors pass through.
        """
        await self.check_for_changes()
        if not (self.trusted and self.point.epoch):
            return await in_database(read_uncached, raw)
        key = hashlib.sha256(raw.encode()).digest()
        principal = self.principals.get(key)
        if principal is None or principal.valid_until <= time.time():
            principal = await self.load_principal(key, raw)
        catalogue = self.catalogue
        if catalogue is None:
            catalogue = await self.load_catalogue()
        return principal, catalogue

    async def check_for_changes(self) -> None:
        """Forget what has changed since the last look. Raises Away."""
        try:
            now = await self.reader.current_position()
            if now != self.point:
                await self.catch_up(now)
        except DatabaseUnavailable:
            self.forget_everything(UNTRACKED)
            raise

    async def catch_up(self, now: LogPosition) -> None:
        """Forget what the changes up to `now` concern; everything, if unsure.

        Looks come back in the order they were made, so a number below the one known
        means another database, not a slow answer.
        """
        gap = now.number - self.point.number
        if now.epoch != self.point.epoch or not 0 <= gap <= CAUGHT_UP:
            self.forget_everything(now)
            return
        while self.point.epoch == now.epoch and self.point.number < now.number:
            start = self.point
            changes = await self.reader.changes_between(start, now)
            if self.point != start:
                continue  # another request has caught up meanwhile
            if len(changes) != now.number - start.number:
                self.forget_everything(now)
                return
            for change in changes:
                self.forget(change)
            self.point = now

    def forget(self, change: ChangeRow) -> None:
        """Forget whom or what one change concerns."""
        self.recent.append(change)
        self.principals.forget(change)
        if concerns_catalogue(change):
            self.catalogue = None

    def forget_everything(self, now: LogPosition) -> None:
        """Begin anew; what is being read at this moment is not remembered."""
        self.generation += 1
        self.principals.clear()
        self.catalogue = None
        self.recent.clear()
        self.point = now

    async def load_principal(self, key: bytes, raw: str) -> Principal:
        """Read the rows behind a token, together with who asks at the same point."""

        async def work(load: Load) -> Principal:
            principal = await in_database(authenticate, raw)
            if self.still_valid(load, lambda change: concerns(change, principal)):
                self.principals.put(key, principal)
            return principal

        principal: Principal = await self.shared(key, work)
        if principal.valid_until <= time.time():
            principal = await in_database(authenticate, raw)
        return principal

    async def load_catalogue(self) -> Catalogue:
        """Read all rules, together with who asks at the same point."""

        async def work(load: Load) -> Catalogue:
            catalogue = await in_database(read_catalogue)
            if self.still_valid(load, concerns_catalogue):
                self.catalogue = catalogue
            return catalogue

        found: Catalogue = await self.shared(b"", work)
        return found

    async def shared(self, key: bytes, work: Callable[[Load], Any]) -> Any:
        """The outcome of `work`; joined only where nothing changed since it began."""
        load, task = self.loads.get(key, (None, None))
        if task is None or load != self.now():
            load = self.now()
            task = asyncio.create_task(work(load))
            self.loads[key] = load, task
            task.add_done_callback(partial(self.loaded, key))
        return await asyncio.shield(task)

    def now(self) -> Load:
        """What a read that begins now will be true for."""
        return Load(self.point, self.generation)

    def loaded(self, key: bytes, task: asyncio.Task[Any]) -> None:
        """Nobody joins a read that is over; its error is for those who waited."""
        if not task.cancelled():
            task.exception()
        if key in self.loads and self.loads[key][1] is task:
            del self.loads[key]

    def still_valid(self, load: Load, concerned: Callable[[ChangeRow], bool]) -> bool:
        """Whether no change seen since a load began could have been missed by it."""
        missed = self.point.number - load.point.number
        if load.generation != self.generation or missed > CAUGHT_UP:
            return False
        later = (c for c in self.recent if c.number > load.point.number)
        return not any(concerned(change) for change in later)

    async def verify(self) -> None:
        """Look whether every trigger is there; without one nothing is remembered.

        Triggers that were switched off and on again make forget what was read
        meanwhile. Nothing is decided where the database is another file by now.
        """
        if self.reader.replaced():
            self.forget_everything(UNTRACKED)
            self.reader.close()
        try:
            found: TriggerState = await in_database(state)
        except DatabaseError as error:
            found = TriggerState([str(error)], [], ())
        trusted = not (found.missing or found.outside)
        if self.trusted and not trusted:
            report(found)
        if trusted != self.trusted or found.marks != self.marks:
            self.forget_everything(UNTRACKED)
        self.trusted, self.marks = trusted, found.marks

    async def keep_verifying(self) -> None:
        """Verify and age now and then, as long as the server runs."""
        aged = time.monotonic()
        while True:
            await asyncio.sleep(VERIFY_EVERY)
            await self.verify()
            if time.monotonic() - aged >= AGED_EVERY:
                aged = time.monotonic()
                self.principals.evict_idle()


def report(found: TriggerState) -> None:
    """Say in the log why nothing is remembered."""
    for table in found.outside:
        logger.error("Changes are not numbered (%s): this is not supported", table)
    if found.missing:
        logger.error("Changes are not numbered (%s): run migrate", found.missing[0])


decision_cache: DecisionCache | None = None
"""This worker's; None where no server runs, and then nothing is remembered."""


@asynccontextmanager
async def caching_decisions() -> AsyncIterator[DecisionCache]:
    """Remember from here on until the server stops."""
    global decision_cache
    decision_cache = DecisionCache(open_reader())
    await decision_cache.verify()
    if not decision_cache.trusted:
        logger.error("Nothing is remembered: changes are not numbered; run doctor")
    with suppress(DatabaseUnavailable):
        await (
            decision_cache.check_for_changes()
        )  # From here on it is known which file was opened.
    upkeep = asyncio.create_task(decision_cache.keep_verifying())
    try:
        yield decision_cache
    finally:
        upkeep.cancel()
        with suppress(asyncio.CancelledError):
            await upkeep
        decision_cache.reader.close()
        decision_cache = None


async def resolve_token(raw: str) -> tuple[Principal, Catalogue]:
    """Who `raw` stands for and the rules, both as committed when this is called.

    Raises accounts.tokens.principal.Unauthenticated; database errors pass through.
    """
    if decision_cache is None:
        return await in_database(read_uncached, raw)
    return await decision_cache.resolve(raw)


def read_uncached(raw: str) -> tuple[Principal, Catalogue]:
    """The same from the rows, with nothing remembered."""
    return authenticate(raw), read_catalogue()


async def database_away() -> bool:
    """Whether a read that begins now gets no answer; False where no server runs."""
    if decision_cache is None:
        return False
    try:
        await decision_cache.check_for_changes()
    except DatabaseUnavailable:
        return True
    return False


def replaced() -> bool:
    """Whether the database's file is another one than when the server started."""
    return decision_cache is not None and decision_cache.reader.replaced()
