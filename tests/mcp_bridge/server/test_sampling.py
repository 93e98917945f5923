"""What a serving process measures about itself."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError
from django.db.models.signals import post_save
from django.utils import timezone
from prometheus_client import REGISTRY

from accounts.audit.record import record
from accounts.models import AuditEvent, AuditSeal
from accounts.rate_limits import store
from mcp_bridge.cache import decision_cache
from mcp_bridge.metrics import service
from mcp_bridge.server import sampling
from tests.support.database_prompt import empty_audit

pytestmark = pytest.mark.once
DAY = timedelta(days=1)


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"portico_{name}", labels)


async def serve(seconds: float) -> None:
    async with sampling.sampling():
        await asyncio.sleep(seconds)


def test_without_metrics_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "ENABLED", False)
    monkeypatch.setattr(sampling, "keep_sampling", None)
    monkeypatch.setattr(sampling, "describe", None)
    asyncio.run(serve(0))


def test_each_sample_is_of_the_process_the_cache_and_the_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is constant is described once, before."""
    done: list[str] = []

    async def elsewhere() -> None:
        done.append("elsewhere")

    sampler = SimpleNamespace(sample=lambda: done.append("process"))
    monkeypatch.setattr(sampling, "ENABLED", True)
    monkeypatch.setattr(service, "ProcessSampler", lambda: sampler)
    monkeypatch.setattr(sampling, "describe", lambda: done.append("described"))
    monkeypatch.setattr(sampling, "sample_cache", lambda: done.append("cache"))
    monkeypatch.setattr(sampling, "sample_pool", lambda: done.append("pool"))
    monkeypatch.setattr(sampling, "sample_elsewhere", elsewhere)
    asyncio.run(serve(0.001))
    assert done == ["described", "process", "cache", "pool", "elsewhere"]


def test_the_process_is_sampled_often_and_the_database_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []

    async def elsewhere() -> None:
        done.append("elsewhere")

    monkeypatch.setattr(sampling, "ENABLED", True)
    monkeypatch.setattr(sampling, "EVERY", 0.0)
    monkeypatch.setattr(sampling, "SELDOM", 3)
    monkeypatch.setattr(sampling, "sample_pool", lambda: done.append("pool"))
    monkeypatch.setattr(sampling, "sample_elsewhere", elsewhere)
    asyncio.run(serve(0.05))
    often, seldom = done.count("pool"), done.count("elsewhere")
    assert often > 6 and seldom == (often + 2) // 3


@pytest.mark.django_db
def test_events_of_sign_ins_are_counted_while_it_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sampling, "ENABLED", True)
    monkeypatch.setattr(service, "ENABLED", True)

    async def nothing() -> None:
        pass

    monkeypatch.setattr(sampling, "keep_sampling", nothing)

    async def story() -> None:
        async with sampling.sampling():
            failed = AuditEvent(action="user.sign_in_failed")
            post_save.send(AuditEvent, instance=failed, created=True)

    name = {"action": "user.sign_in_failed"}
    before = value("audit_events_total", **name) or 0
    asyncio.run(story())
    assert value("audit_events_total", **name) == before + 1
    record("user.sign_in_failed")
    assert value("audit_events_total", **name) == before + 1


def test_what_runs_is_described(settings: Any) -> None:
    settings.AUDIT_DURABILITY, settings.VERSION = "batch", "9.9"
    sampling.describe()
    labels = {"version": "9.9", "database": "sqlite", "durability": "batch"}
    assert value("info", **labels) == 1


@pytest.mark.parametrize(
    ("cache", "expected"),
    [
        (None, 0),
        (SimpleNamespace(trusted=False), 0),
        (SimpleNamespace(trusted=True), 1),
    ],
)
def test_a_cache_without_triggers_shows(
    monkeypatch: pytest.MonkeyPatch, cache: Any, expected: int
) -> None:
    monkeypatch.setattr(decision_cache, "decision_cache", cache)
    sampling.sample_cache()
    assert value("caching") == expected


def test_the_pool_is_sampled_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sampling.sample_pool()
    stats = {"pool_size": 3, "pool_available": 1, "pool_max": 4}
    pool = SimpleNamespace(get_stats=lambda: stats)
    monkeypatch.setattr(sampling, "connection", SimpleNamespace(pool=pool))
    sampling.sample_pool()
    assert value("database_pool_connections", state="in_use") == 2


@pytest.mark.django_db
def test_unsealed_events_and_the_last_purge_are_read() -> None:
    empty_audit()
    AuditEvent(action="t", at=timezone.now() - 3 * DAY).save()
    AuditEvent(action="t").save()
    sampling.sample_audit()
    assert value("audit_unsealed_events") == 2
    assert abs((value("audit_oldest_unsealed_seconds") or 0) - 3 * 86400) < 60
    started = timezone.now() - 3 * DAY
    last = value("last_purge_timestamp_seconds") or 0
    assert abs(last - started.timestamp()) < 60, "never purged: since the first event"
    for days in (2, 1, 3):
        AuditEvent(action="purge.done", at=timezone.now() - days * DAY).save()
    AuditEvent(action="purge.failed").save()
    AuditSeal.objects.all().seal()
    sampling.sample_audit()
    last = value("last_purge_timestamp_seconds") or 0
    assert abs(last - (timezone.now() - DAY).timestamp()) < 60
    assert value("audit_unsealed_events") == value("audit_oldest_unsealed_seconds") == 0


@pytest.mark.django_db
def test_before_the_first_event_the_last_purge_is_now() -> None:
    empty_audit()
    assert abs(sampling.last_purge() - time.time()) < 60


@pytest.mark.parametrize("url", ["", "redis://h"])
def test_the_store_is_measured_if_there_is_one(
    monkeypatch: pytest.MonkeyPatch, settings: Any, url: str
) -> None:
    """The audit always, in a thread that may use the database."""
    settings.VALKEY_URL, done = url, list[Any]()

    def answers() -> bool:
        done.append("store")
        return True

    async def in_database(work: Any) -> None:
        done.append(work)

    monkeypatch.setattr(sampling, "store_answers", answers)
    monkeypatch.setattr(sampling, "in_database", in_database)
    asyncio.run(sampling.sample_elsewhere())
    assert done == [*(["store"] if url else []), sampling.sample_audit]


@pytest.mark.parametrize("answers", [True, False])
def test_the_store_and_a_lost_database(
    monkeypatch: pytest.MonkeyPatch, settings: Any, answers: bool
) -> None:
    """Neither stops the sampling."""
    settings.VALKEY_URL = "redis://h"
    storage = SimpleNamespace(check=lambda: answers)
    shared = SimpleNamespace(limiter=SimpleNamespace(storage=storage))
    monkeypatch.setattr(store, "shared_store", lambda url: shared)

    async def away(work: Any) -> None:
        raise OperationalError("away")

    monkeypatch.setattr(sampling, "in_database", away)
    asyncio.run(sampling.sample_elsewhere())
    assert value("rate_limit_store_up", kind="valkey") == answers
