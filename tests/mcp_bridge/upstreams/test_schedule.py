"""Which servers are due, and what a discovery in the event loop stores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from mcp_bridge.access.catalogue import Upstream
from mcp_bridge.models import UpstreamServer, UpstreamStatus
from mcp_bridge.upstreams import discovery, schedule
from mcp_bridge.upstreams.discovery import Found
from mcp_bridge.upstreams.problems import UpstreamProblem
from mcp_bridge.upstreams.schedule import discover_due, due_servers


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
    assert {row.name for row in due_servers(300)} == {"new", "old"}


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
