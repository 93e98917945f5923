"""AuditWriter: call events, many to a commit; a lost event is always logged.

`durable`: write() returns after the commit of its event. `batch`: write() returns once
the queue has room; commits follow within BATCH_EVERY. `off`: nothing is written.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

from django.conf import settings
from django.db import DataError, Error, IntegrityError, OperationalError

from accounts.parsing.text import counted
from mcp_bridge.audit import bulk_insert
from mcp_bridge.audit.bulk_insert import CallEvent
from mcp_bridge.db import in_database
from mcp_bridge.metrics import prometheus, service

logger = logging.getLogger(__name__)

BATCH_SIZE = 1_000
"""Maximum events in a commit."""
QUEUE_LIMIT = 10_000
"""Maximum events in the queue; over it callers wait, and fail with the commit."""
BATCH_EVERY = 0.05
RETRY_AFTER = 1.0
LAST_TRIES = 3
CLOSE_POLL = 0.01
COMMIT_TIMEOUT = 8.0
"""Seconds that a commit may take, as long as a statement; then its waiters fail."""

Waiter = asyncio.Future[None]


class QueuedEvent(NamedTuple):
    """A queued event, and the future that waits for its commit (None: batch)."""

    event: CallEvent
    waiter: Waiter | None


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
        """Record `event`. Raises django.db.Error if it cannot be recorded."""
        if self.off:
            return
        while len(self.queue) >= QUEUE_LIMIT:
            await self._wait_for_room(self.overflow)
        if not self.durable:
            self.queue.append(QueuedEvent(event, None))
            self.start(BATCH_EVERY)
            return
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self.queue.append(QueuedEvent(event, waiter))
        self.start()
        await waiter

    async def _wait_for_room(self, line: deque[Waiter]) -> None:
        """Wait in `line` until a commit makes room."""
        waiter: Waiter = asyncio.get_running_loop().create_future()
        line.append(waiter)
        await waiter

    def start(self, delay: float = 0.0) -> None:
        """Schedule a commit; events that come before it are included."""
        if self.started or self.busy:
            return
        self.started = True
        loop = asyncio.get_running_loop()
        if delay:
            loop.call_later(delay, self.commit)
        else:
            loop.call_soon(self.commit)

    def commit(self) -> None:
        """Pass the first events of the queue to the thread."""
        self.started = False
        if not self.queue:  # close() has written it
            return
        self.busy = True
        prometheus.set_audit_queue(len(self.queue))
        size = min(len(self.queue), BATCH_SIZE)
        batch = [self.queue.popleft() for _ in range(size)]
        events = [queued.event for queued in batch]
        self.began = time.perf_counter()
        loop = asyncio.get_running_loop()
        self.alarm = loop.call_later(COMMIT_TIMEOUT, self._time_out, batch)
        job = loop.run_in_executor(self.thread, insert_or_isolate, events)
        job.add_done_callback(partial(self._on_committed, batch))

    def _time_out(self, batch: list[QueuedEvent]) -> None:
        """The commit is late: fail its waiters and drop durable events.

        The drop is not silent: write() raises for each of them.
        """
        error = OperationalError(f"no commit within {COMMIT_TIMEOUT:g} s")
        if self.durable:
            waiting, self.queue = [*batch, *self.queue], deque()
            self._resolve_batch(waiting, dict.fromkeys(range(len(waiting)), error))
        self._release_waiters(error)
        loop = asyncio.get_running_loop()
        self.alarm = loop.call_later(COMMIT_TIMEOUT, self._time_out, [])

    def _on_committed(
        self, batch: list[QueuedEvent], job: asyncio.Future[dict[int, Error]]
    ) -> None:
        """Resolve the waiters and schedule the next commit."""
        self.busy = False
        self.alarm.cancel()
        error = job.exception()
        lost = len(batch) if self.durable else 0
        service.observe_commit(self.began, lost if error else len(job.result()))
        if error is None:
            self._resolve_batch(batch, job.result())
        elif self.durable:
            self._resolve_batch(batch, dict.fromkeys(range(len(batch)), error))
        else:
            logger.error("Audit events could not be committed yet: %s", error)
            self.queue.extendleft(reversed(batch))
        self._release_waiters(error)
        prometheus.set_audit_queue(len(self.queue))
        if self.queue:
            again = BATCH_EVERY if error is None else RETRY_AFTER
            self.start(0.0 if self.durable else again)

    def _resolve_batch(
        self, batch: list[QueuedEvent], refused: Mapping[int, BaseException]
    ) -> None:
        """Resolve each waiter with the outcome of that event; log lost events."""
        for index, (event, waiter) in enumerate(batch):
            error = refused.get(index)
            if waiter is None:
                if error is not None:
                    logger.error("An audit event is lost (%s): %r", error, event)
            elif not waiter.done():
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(error)

    def _release_waiters(self, error: BaseException | None) -> None:
        """Wake as many callers as there is room for; after an error, fail them all."""
        room = QUEUE_LIMIT - len(self.queue)
        while self.overflow and (error is not None or room > 0):
            waiter = self.overflow.popleft()
            if waiter.done():
                continue
            room -= 1
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    async def close(self) -> None:
        """Commit the queue; log what cannot be committed."""
        tries = LAST_TRIES
        while (self.busy or self.queue) and tries:
            if self.busy:
                await asyncio.sleep(CLOSE_POLL)
                continue
            # Empty the queue first: a scheduled commit would write the batch again.
            batch, self.queue = list(self.queue), deque()
            events = [queued.event for queued in batch]
            try:
                loop = asyncio.get_running_loop()
                job = loop.run_in_executor(self.thread, insert_or_isolate, events)
                self._resolve_batch(batch, await job)
            except Error as error:
                tries -= 1
                self.queue.extendleft(reversed(batch))
                waiting = counted(len(events), "event waits", "events wait")
                logger.error("Of the audit, %s for a commit: %s", waiting, error)
        self.thread.shutdown()


def insert_or_isolate(events: list[CallEvent]) -> dict[int, Error]:
    """Commit all events; if a value is invalid, all but its event."""
    try:
        bulk_insert.insert_events(events)
        return {}
    except (DataError, IntegrityError):
        return insert_singly(events)


def insert_singly(events: list[CallEvent]) -> dict[int, Error]:
    """Commit one by one. Returns index -> error of the refused events."""
    refused: dict[int, Error] = {}
    for index, event in enumerate(events):
        try:
            bulk_insert.insert_events([event])
        except (DataError, IntegrityError) as error:
            refused[index] = error
    return refused


audit_writer: AuditWriter | None = None
"""This worker's writer; None if no server runs, and then each event commits alone."""


@asynccontextmanager
async def writing_audit() -> AsyncIterator[AuditWriter]:
    """Run the writer until the server stops, then commit its queue."""
    global audit_writer
    audit_writer = AuditWriter(settings.AUDIT_DURABILITY)
    try:
        yield audit_writer
    finally:
        await audit_writer.close()
        audit_writer = None


def records_messages() -> bool:
    """Whether AUDIT_DURABILITY lets messages be recorded by this worker."""
    return audit_writer is None or not audit_writer.off


async def write_event(event: CallEvent) -> None:
    """Record `event` as AUDIT_DURABILITY says. Raises django.db.Error."""
    if audit_writer is None:
        await in_database(bulk_insert.insert_events, [event])
    else:
        await audit_writer.write(event)
