"""Recorder: call events, many to a commit. Nothing is dropped without a word.

`durable`: write() returns once its event is committed. `batch`: once there is room
for it; commits follow within BATCH_EVERY. `off`: at once, and nothing is written.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

from django.conf import settings
from django.db import DataError, Error, IntegrityError, OperationalError

from mcp_bridge.audit import bulk_insert
from mcp_bridge.audit.bulk_insert import CallEvent
from mcp_bridge.db import in_database
from mcp_bridge.metrics import prometheus

logger = logging.getLogger(__name__)

AT_ONCE = 1_000
"""Events to a commit, at most."""
ROOM = 10_000
"""Events that may wait; after that callers wait, and are refused where that fails."""
BATCH_EVERY = 0.05
RETRY_AFTER = 1.0
LAST_TRIES = 3
CLOSES_EVERY = 0.01
PATIENCE = 8.0
"""Seconds a commit may take, as long as a statement; past it who waits is refused."""

Waiter = asyncio.Future[None]


class QueuedEvent(NamedTuple):
    """An event on its way, and who waits for its commit (nobody: batch)."""

    event: CallEvent
    place: Waiter | None


class AuditWriter:
    """One queue and one writing thread for this process."""

    def __init__(self, durability: str) -> None:
        self.durable = durability == "durable"
        self.off = durability == "off"
        self.queue: deque[QueuedEvent] = deque()
        self.overflow: deque[Waiter] = deque()
        self.busy = self.started = False
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="portico-audit")

    async def write(self, event: CallEvent) -> None:
        """Have `event` recorded. Raises django.db.Error where it cannot be."""
        if self.off:
            return
        while len(self.queue) >= ROOM:
            await self.new_place(self.overflow)
        if not self.durable:
            self.queue.append(QueuedEvent(event, None))
            self.start(BATCH_EVERY)
            return
        place: Waiter = asyncio.get_running_loop().create_future()
        self.queue.append(QueuedEvent(event, place))
        self.start()
        await place

    async def new_place(self, line: deque[Waiter]) -> None:
        """Wait in `line`."""
        place: Waiter = asyncio.get_running_loop().create_future()
        line.append(place)
        await place

    def start(self, delay: float = 0.0) -> None:
        """See to it that a commit follows; what comes until then goes along."""
        if self.started or self.busy:
            return
        self.started = True
        loop = asyncio.get_running_loop()
        if delay:
            loop.call_later(delay, self.commit)
        else:
            loop.call_soon(self.commit)

    def commit(self) -> None:
        """Hand the first of the queue to the thread."""
        self.started, self.busy = False, True
        prometheus.set_audit_queue(len(self.queue))
        size = min(len(self.queue), AT_ONCE)
        batch = [self.queue.popleft() for _ in range(size)]
        events = [waiting.event for waiting in batch]
        loop = asyncio.get_running_loop()
        self.alarm = loop.call_later(PATIENCE, self.refuse, batch)
        job = loop.run_in_executor(self.thread, insert_or_isolate, events)
        job.add_done_callback(partial(self.committed, batch))

    def refuse(self, batch: list[QueuedEvent]) -> None:
        """The commit does not return: nobody waits on, durable events are let go."""
        error = OperationalError(f"no commit within {PATIENCE:g} s")
        if self.durable:
            waiting, self.queue = [*batch, *self.queue], deque()
            self._resolve_batch(waiting, dict.fromkeys(range(len(waiting)), error))
        self._release_waiters(error)
        loop = asyncio.get_running_loop()
        self.alarm = loop.call_later(PATIENCE, self.refuse, [])

    def committed(
        self, batch: list[QueuedEvent], job: asyncio.Future[dict[int, Error]]
    ) -> None:
        """Tell who waits how it ended, and go on."""
        self.busy = False
        self.alarm.cancel()
        error = job.exception()
        if error is None:
            self._resolve_batch(batch, job.result())
        elif self.durable:
            self._resolve_batch(batch, dict.fromkeys(range(len(batch)), error))
        else:
            logger.error("Audit events wait: %s", error)
            self.queue.extendleft(reversed(batch))
        self._release_waiters(error)
        prometheus.set_audit_queue(len(self.queue))
        if self.queue:
            again = BATCH_EVERY if error is None else RETRY_AFTER
            self.start(0.0 if self.durable else again)

    def _resolve_batch(
        self, batch: list[QueuedEvent], refused: Mapping[int, BaseException]
    ) -> None:
        """Each of a batch hears of its own event; one that does not fit is told."""
        for index, (event, place) in enumerate(batch):
            error = refused.get(index)
            if place is None:
                if error is not None:
                    logger.error("An audit event is lost (%s): %r", error, event)
            elif not place.done():
                if error is None:
                    place.set_result(None)
                else:
                    place.set_exception(error)

    def _release_waiters(self, error: BaseException | None) -> None:
        """Those who waited for room; with the database away they are refused."""
        while self.overflow and (error is not None or len(self.queue) < ROOM):
            place = self.overflow.popleft()
            if place.done():
                continue
            if error is None:
                place.set_result(None)
                return
            place.set_exception(error)

    async def close(self) -> None:
        """Commit what waits; say what cannot be."""
        tries = LAST_TRIES
        while (self.busy or self.queue) and tries:
            if self.busy:
                await asyncio.sleep(CLOSES_EVERY)
                continue
            # Out of the queue first: a commit that was planned would write it again.
            batch, self.queue = list(self.queue), deque()
            events = [waiting.event for waiting in batch]
            try:
                loop = asyncio.get_running_loop()
                job = loop.run_in_executor(self.thread, insert_or_isolate, events)
                self._resolve_batch(batch, await job)
            except Error as error:
                tries -= 1
                self.queue.extendleft(reversed(batch))
                logger.error("%s audit events still wait: %s", len(events), error)
        self.thread.shutdown()


def insert_or_isolate(events: list[CallEvent]) -> dict[int, Error]:
    """Commit; where the database refuses a value, all but the event that has it."""
    try:
        bulk_insert.insert_events(events)
        return {}
    except (DataError, IntegrityError):
        return insert_singly(events)


def insert_singly(events: list[CallEvent]) -> dict[int, Error]:
    """Commit one by one; index -> why not, of those that cannot be."""
    refused: dict[int, Error] = {}
    for index, event in enumerate(events):
        try:
            bulk_insert.insert_events([event])
        except (DataError, IntegrityError) as error:
            refused[index] = error
    return refused


audit_writer: AuditWriter | None = None
"""This worker's; None where no server runs, and then each event commits by itself."""


@asynccontextmanager
async def writing_audit() -> AsyncIterator[AuditWriter]:
    """Record from here on until the server stops, then commit what is left."""
    global audit_writer
    audit_writer = AuditWriter(settings.AUDIT_DURABILITY)
    try:
        yield audit_writer
    finally:
        await audit_writer.close()
        audit_writer = None


async def write_event(event: CallEvent) -> None:
    """Have `event` recorded as AUDIT_DURABILITY says. Raises django.db.Error."""
    if audit_writer is None:
        await in_database(bulk_insert.insert_events, [event])
    else:
        await audit_writer.write(event)
