"""Which servers are due, and what a discovery in the event loop stores."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError
from django.utils import timezone

from mcp_bridge.access.catalogue import Upstream
from mcp_bridge.models import UpstreamServer, UpstreamStatus
from mcp_bridge.upstreams import discovery, schedule
from mcp_bridge.upstreams.discovery import Found
from mcp_bridge.upstreams.problems import UpstreamProblem
from mcp_bridge.upstreams.schedule import (
    discover_due,
    discover_one,
    discovering,
    due_servers,
    keep_discovering,
)
from tests.support.asgi import run
from tests.support.mcp_in_process import until


def server(name: str, age: float | None = None, **values: Any) -> UpstreamServer:
    """A server whose last check was `age` seconds ago."""
    url = f"http://127.0.0.1:1/{name}"
    row = UpstreamServer.objects.create(name=name, prefix=name, url=url, **values)
    if age is not None:
        checked_at = timezone.now() - timedelta(seconds=age)
        UpstreamStatus.objects.create(upstream=row, checked_at=checked_at)
    return row


@pytest.mark.django_db
def test_only_enabled_servers_that_were_not_checked_lately_are_due() -> None:
    server("new")
    server("old", 500)
    server("fresh", 5)
    server("off", 500, enabled=False)
    UpstreamStatus.objects.create(upstream=server("unchecked"))
    recent = UpstreamStatus.objects.get(upstream=server("failing", 5))
    recent.contacted_at = timezone.now() - timedelta(seconds=900)
    recent.save()
    assert {row.name for row in due_servers(300)} == {"new", "old", "unchecked"}


def test_one_failing_server_does_not_keep_others_from_being_discovered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored: dict[str, Any] = {}

    async def explore(upstream: Upstream) -> Found:
        if upstream.name == "bad":
            raise UpstreamProblem("failed", "It failed.")
        return Found("Good", "1", "2026-07-28", "", (), 1.0, "")

    async def directly(work: Callable[..., Any], *args: Any) -> Any:
        return work(*args)

    def begin(server: UpstreamServer) -> None:
        if server.name == "busy":
            raise UpstreamProblem("busy", "Another process looks at it.")

    def store(server: UpstreamServer, seen: Found) -> dict[str, int]:
        stored[server.name] = seen.server_name
        return {}

    def store_problem(server: UpstreamServer, problem: UpstreamProblem) -> None:
        stored[server.name] = problem.text

    names = ("bad", "busy", "good")
    due = [UpstreamServer(name=name, url="http://127.0.0.1:1/") for name in names]
    monkeypatch.setattr(schedule, "due_servers", lambda every: due)
    monkeypatch.setattr(schedule, "in_database", directly)
    for fake in (explore, begin, store, store_problem):
        monkeypatch.setattr(discovery, fake.__name__, fake)
    asyncio.run(discover_due(300))
    assert stored == {"bad": "It failed.", "good": "Good"}


@pytest.mark.parametrize("changed", [0, 1])
def test_only_a_discovery_that_changed_something_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, changed: int
) -> None:
    async def explore(upstream: Upstream) -> Found:
        return Found("Good", "1", "2026-07-28", "", (), 1.0, "")

    async def directly(work: Callable[..., Any], *args: Any) -> Any:
        return work(*args)

    monkeypatch.setattr(schedule, "in_database", directly)
    monkeypatch.setattr(discovery, "explore", explore)
    monkeypatch.setattr(discovery, "begin", lambda server: None)
    monkeypatch.setattr(discovery, "store", lambda server, seen: {"added": changed})
    with caplog.at_level(logging.INFO):
        run(discover_one(UpstreamServer(name="good", url="http://127.0.0.1:1/")))
    assert bool(caplog.messages) == bool(changed)


class Watch:
    """Counts what the schedule does; the first looks fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.every: list[float] = []
        self.errors: list[Exception] = []
        for name in ("close_idle_sessions", "close_sessions", "close_clients"):
            monkeypatch.setattr(schedule, name, self.noted(name))
        monkeypatch.setattr(schedule, "discover_due", self.discover_due)
        monkeypatch.setattr(schedule, "Listeners", self.listeners)
        monkeypatch.setattr(schedule, "LONGEST_WAIT", 0.001)

    def noted(self, name: str) -> Any:
        async def note() -> None:
            self.done.append(name)

        return note

    async def discover_due(self, every: float) -> None:
        self.every.append(every)
        if self.errors:
            raise self.errors.pop(0)

    def listeners(self, look: Any) -> Any:
        assert look is discover_one
        return self

    async def run(self) -> None:
        self.done.append("listened")
        await asyncio.Event().wait()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


def test_a_failing_look_does_not_end_the_schedule(
    watch: Watch, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.UPSTREAM_DISCOVERY_INTERVAL = 300
    watch.errors = [DatabaseError("away"), RuntimeError("a defect")]

    async def story() -> None:
        task = asyncio.create_task(keep_discovering())
        await until(lambda: len(watch.every) >= 3)
        task.cancel()

    with caplog.at_level(logging.INFO):
        run(story())
    assert set(watch.every) == {300}
    levels = [r.levelname for r in caplog.records if r.name == schedule.__name__]
    assert levels == ["INFO", "ERROR"]


def test_without_an_interval_only_idle_sessions_are_closed(
    watch: Watch, settings: Any
) -> None:
    settings.UPSTREAM_DISCOVERY_INTERVAL = 0

    async def story() -> None:
        task = asyncio.create_task(keep_discovering())
        await until(lambda: len(watch.done) >= 2)
        task.cancel()

    run(story())
    assert set(watch.done) == {"close_idle_sessions"} and watch.every == []


@pytest.mark.parametrize("interval", [0, 300])
def test_the_end_of_the_server_closes_every_connection(
    watch: Watch, settings: Any, interval: int
) -> None:
    settings.UPSTREAM_DISCOVERY_INTERVAL = interval

    async def story() -> None:
        before = asyncio.all_tasks()
        async with discovering():
            await until(lambda: "close_idle_sessions" in watch.done)
        assert asyncio.all_tasks() == before

    run(story())
    assert watch.done[-2:] == ["close_sessions", "close_clients"]
    assert ("listened" in watch.done) == bool(interval)


@pytest.mark.parametrize(
    ("every", "longest"), [(40.0, 10.0), (400.0, 30.0), (0.0, 30.0)]
)
def test_a_short_interval_is_looked_at_often(
    monkeypatch: pytest.MonkeyPatch, settings: Any, every: float, longest: float
) -> None:
    settings.UPSTREAM_DISCOVERY_INTERVAL = every
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        raise asyncio.CancelledError

    monkeypatch.setattr(random, "uniform", lambda low, high: 1.0)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        run(keep_discovering())
    assert waits == [longest]


def test_a_few_servers_are_discovered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = [0], [0]

    async def one(server: UpstreamServer) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        await asyncio.sleep(0)
        running[0] -= 1

    async def directly(work: Callable[..., Any], *args: Any) -> Any:
        return [UpstreamServer(name=str(n)) for n in range(12)]

    monkeypatch.setattr(schedule, "in_database", directly)
    monkeypatch.setattr(schedule, "discover_one", one)
    run(discover_due(300))
    assert most == [schedule.AT_ONCE] and running == [0]
