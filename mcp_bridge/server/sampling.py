"""Measures the state of this process for the metrics, while it serves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models.signals import post_save

from accounts.models import AuditEvent, AuditSeal
from accounts.rate_limits import store
from mcp_bridge.cache import decision_cache
from mcp_bridge.db import in_database
from mcp_bridge.metrics import service
from mcp_bridge.metrics.prometheus import ENABLED

logger = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two samples of the process and of the pool."""
SELDOM = 12
"""Samples between two reads of the database."""
MOST_UNSEALED = 10_000


@asynccontextmanager
async def sampling() -> AsyncIterator[None]:
    """Sample until the server stops, if there are metrics."""
    if not ENABLED:
        yield
        return
    describe()
    post_save.connect(count_event, AuditEvent, dispatch_uid="portico metrics")
    task = asyncio.create_task(keep_sampling())
    try:
        yield
    finally:
        post_save.disconnect(sender=AuditEvent, dispatch_uid="portico metrics")
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def describe() -> None:
    """Set the series of constant facts."""
    facts = (settings.VERSION, connection.vendor, settings.AUDIT_DURABILITY)
    service.info.labels(*facts).set(1)


def count_event(instance: AuditEvent, **kwargs: Any) -> None:
    """Count an event of synchronous code; call events are `portico_decisions`."""
    service.count_audit_event(instance.action)


async def keep_sampling() -> None:
    process, number = service.ProcessSampler(), 0
    while True:
        process.sample()
        sample_cache()
        sample_pool()
        if number % SELDOM == 0:
            await sample_elsewhere()
        number += 1
        await asyncio.sleep(EVERY)


def sample_cache() -> None:
    cache = decision_cache.decision_cache
    service.caching.set(bool(cache and cache.trusted))


def sample_pool() -> None:
    pool: Any = getattr(connection, "pool", None)
    if pool is not None:
        service.set_pool(pool.get_stats())


async def sample_elsewhere() -> None:
    """What the database and the store say; old values stay if they do not answer."""
    if settings.VALKEY_URL:
        up = await asyncio.to_thread(store_answers)
        service.store_up.labels("valkey").set(up)
    try:
        await in_database(sample_audit)
    except DatabaseError as error:
        logger.info("The audit was not measured: %s", error)


def store_answers() -> bool:
    return store.shared_store(settings.VALKEY_URL).limiter.storage.check()


def sample_audit() -> None:
    waiting, oldest = AuditSeal.objects.all().unsealed(MOST_UNSEALED)
    service.unsealed.set(waiting)
    service.unsealed_age.set(time.time() - oldest.timestamp() if oldest else 0)
    service.last_purge.set(last_purge())


def last_purge() -> float:
    """Time of the last complete purge, else of the first event, else now."""
    events = AuditEvent.objects.filter(action="purge.done").order_by("-at")
    first = AuditEvent.objects.order_by("id")
    row = events.first() or first.first()
    return row.at.timestamp() if row else time.time()
