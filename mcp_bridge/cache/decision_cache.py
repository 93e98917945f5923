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
from mcp_bridge.cache.principal_cache import People, concerns, concerns_catalogue
from mcp_bridge.cache.readers import reader
from mcp_bridge.cache.readers.base import NOWHERE, Away, Change, Point, Reader
from mcp_bridge.cache.triggers.install import State, state
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

    point: Point
    generation: int


class Memory:
    """What one worker remembers, and the point up to which it is true."""

    def __init__(self, source: Reader, most: int = REMEMBERED) -> None:
        self.reader = source
        self.people = People(most)
        self.catalogue: Catalogue | None = None
        self.point = NOWHERE
        self.trusted = False
        self.marks: tuple[Any, ...] = ()
        self.generation = 0
        self.recent: deque[Change] = deque(maxlen=CAUGHT_UP)
        self.loads: dict[bytes, tuple[Load, asyncio.Task[Any]]] = {}

    async def facts(self, raw: str) -> tuple[Principal, Catalogue]:
        """Who `raw` stands for, and the rules, as they are now.

        Raises accounts.tokens.principal.Unauthenticated; database errors pass through.
        """
        await self.look()
        if not (self.trusted and self.point.epoch):
            return await in_database(read, raw)
        key = hashlib.sha256(raw.encode()).digest()
        principal = self.people.get(key)
        if principal is None or principal.ends_at <= time.time():
            principal = await self.load_principal(key, raw)
        catalogue = self.catalogue
        if catalogue is None:
            catalogue = await self.load_catalogue()
        return principal, catalogue

    async def look(self) -> None:
        """Forget what has changed since the last look. Raises Away."""
        try:
            now = await self.reader.look()
            if now != self.point:
                await self.catch_up(now)
        except Away:
            self.forget_everything(NOWHERE)
            raise

    async def catch_up(self, now: Point) -> None:
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
            changes = await self.reader.news(start, now)
            if self.point != start:
                continue  # another request has caught up meanwhile
            if len(changes) != now.number - start.number:
                self.forget_everything(now)
                return
            for change in changes:
                self.forget(change)
            self.point = now

    def forget(self, change: Change) -> None:
        """Forget whom or what one change concerns."""
        self.recent.append(change)
        self.people.forget(change)
        if concerns_catalogue(change):
            self.catalogue = None

    def forget_everything(self, now: Point) -> None:
        """Begin anew; what is being read at this moment is not remembered."""
        self.generation += 1
        self.people.clear()
        self.catalogue = None
        self.recent.clear()
        self.point = now

    async def load_principal(self, key: bytes, raw: str) -> Principal:
        """Read the rows behind a token, together with who asks at the same point."""

        async def work(load: Load) -> Principal:
            principal = await in_database(authenticate, raw)
            if self.untouched(load, lambda change: concerns(change, principal)):
                self.people.put(key, principal)
            return principal

        principal: Principal = await self.shared(key, work)
        if principal.ends_at <= time.time():
            principal = await in_database(authenticate, raw)
        return principal

    async def load_catalogue(self) -> Catalogue:
        """Read all rules, together with who asks at the same point."""

        async def work(load: Load) -> Catalogue:
            catalogue = await in_database(read_catalogue)
            if self.untouched(load, concerns_catalogue):
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

    def untouched(self, load: Load, concerned: Callable[[Change], bool]) -> bool:
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
            self.forget_everything(NOWHERE)
            self.reader.close()
        try:
            found: State = await in_database(state)
        except DatabaseError as error:
            found = State([str(error)], [], ())
        trusted = not (found.missing or found.outside)
        if self.trusted and not trusted:
            report(found)
        if trusted != self.trusted or found.marks != self.marks:
            self.forget_everything(NOWHERE)
        self.trusted, self.marks = trusted, found.marks

    async def keep_verifying(self) -> None:
        """Verify and age now and then, as long as the server runs."""
        aged = time.monotonic()
        while True:
            await asyncio.sleep(VERIFY_EVERY)
            await self.verify()
            if time.monotonic() - aged >= AGED_EVERY:
                aged = time.monotonic()
                self.people.age()


def report(found: State) -> None:
    """Say in the log why nothing is remembered."""
    for table in found.outside:
        logger.error("Changes are not numbered (%s): this is not supported", table)
    if found.missing:
        logger.error("Changes are not numbered (%s): run migrate", found.missing[0])


memory: Memory | None = None
"""This worker's; None where no server runs, and then nothing is remembered."""


@asynccontextmanager
async def remembering() -> AsyncIterator[Memory]:
    """Remember from here on until the server stops."""
    global memory
    memory = Memory(reader())
    await memory.verify()
    if not memory.trusted:
        logger.error("Nothing is remembered: changes are not numbered; run doctor")
    with suppress(Away):
        await memory.look()  # From here on it is known which file was opened.
    upkeep = asyncio.create_task(memory.keep_verifying())
    try:
        yield memory
    finally:
        upkeep.cancel()
        with suppress(asyncio.CancelledError):
            await upkeep
        memory.reader.close()
        memory = None


async def facts(raw: str) -> tuple[Principal, Catalogue]:
    """Who `raw` stands for and the rules, both as committed when this is called.

    Raises accounts.tokens.principal.Unauthenticated; database errors pass through.
    """
    if memory is None:
        return await in_database(read, raw)
    return await memory.facts(raw)


def read(raw: str) -> tuple[Principal, Catalogue]:
    """The same from the rows, with nothing remembered."""
    return authenticate(raw), read_catalogue()


async def database_away() -> bool:
    """Whether a read that begins now gets no answer; False where no server runs."""
    if memory is None:
        return False
    try:
        await memory.look()
    except Away:
        return True
    return False


def replaced() -> bool:
    """Whether the database's file is another one than when the server started."""
    return memory is not None and memory.reader.replaced()
