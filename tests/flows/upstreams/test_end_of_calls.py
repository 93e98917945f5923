"""A call of an upstream server ends within about a second after its right ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from accounts.models import AuditEvent, User
from mcp_bridge.models import ArgumentRule, Primitive, UpstreamServer
from tests.support.mcp_client import LEGACY, MODERN, McpClient
from tests.support.server import Portico
from tests.support.upstream_servers import (
    RunningUpstream,
    accepted,
    running_upstream,
    upstream_row,
)
from tests.support.users import make_user

pytestmark = pytest.mark.once
LATEST = 3.0
"""Seconds; checks are half a second apart, and the machine may be busy."""


def disable(row: UpstreamServer, user: User) -> None:
    UpstreamServer.objects.filter(pk=row.pk).update(enabled=False)


def untick(row: UpstreamServer, user: User) -> None:
    Primitive.objects.get(upstream=row).required_scopes.clear()


def change(row: UpstreamServer, user: User) -> None:
    Primitive.objects.filter(upstream=row).update(calls_refused=True)


def limit(row: UpstreamServer, user: User) -> None:
    tool = Primitive.objects.get(upstream=row)
    ArgumentRule.objects.create(
        primitive=tool, pointer="/seconds", operator="at_most", value=1
    )


def lock(row: UpstreamServer, user: User) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


ENDS: list[Callable[[UpstreamServer, User], None]] = [
    disable,
    untick,
    change,
    limit,
    lock,
]
PATHS = [(era, meta) for era in (MODERN, LEGACY) for meta in ({}, {"progressToken": 1})]
"""With a progress token, the answer is a stream from the start."""


@pytest.fixture(params=[False, True], scope="module")
def upstream(request: Any) -> Iterator[RunningUpstream]:
    with running_upstream(legacy=request.param) as running:
        yield running


def test_every_end_stops_calls_on_every_path(
    server: Portico, rows: None, upstream: RunningUpstream
) -> None:
    answers: list[httpx2.Response] = []
    last = AuditEvent.objects.latest("pk").pk

    def call(client: McpClient, name: str, meta: dict[str, Any]) -> None:
        params = {"name": name, "arguments": {"seconds": 60}, "_meta": meta}
        answers.append(client.post("tools/call", params))

    scene = []
    for number, end in enumerate(ENDS):
        row = upstream_row(upstream.url, name=f"end{number}")
        accepted(row, "tool", "wait")
        user = make_user(f"dora{number}", "User")
        scene.append((end, row, user))
    with ThreadPoolExecutor(len(ENDS) * len(PATHS)) as crowd:
        calls = []
        for _end, row, user in scene:
            for era, meta in PATHS:
                client = McpClient(server, server.token(user.username), era).open()
                name = f"{row.name}__wait"
                calls.append(crowd.submit(call, client, name, meta))
        time.sleep(2)
        assert not any(done.done() for done in calls)
        before = len(upstream.seen.cancelled)
        began = time.monotonic()
        for end, row, user in scene:
            end(row, user)
        for done in calls:
            done.result(20)
        assert time.monotonic() - began < LATEST
    while len(upstream.seen.cancelled) < before + len(calls):
        assert time.monotonic() - began < LATEST + 2, upstream.seen.cancelled
        time.sleep(0.05)
    assert not any("waited" in answer.text for answer in answers)
    events = AuditEvent.objects.filter(pk__gt=last, action="tool.called")
    assert set(events.values_list("outcome", flat=True)) == {"withheld"}
    assert events.count() == len(calls)
    for _end, row, _user in scene:
        row.delete()
