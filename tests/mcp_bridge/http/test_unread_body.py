"""A response that needs no body leaves after the body, within limits."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from mcp_bridge.http import unread_body
from mcp_bridge.http.unread_body import discarding_unread
from tests.support.asgi import GONE, Client, Event, chunk, http_scope, run

pytestmark = pytest.mark.once
LENGTH, CHUNKED = {"content-length": "9"}, {"transfer-encoding": "chunked"}
PART = chunk(b"abc", more=True)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread_body, "IDLE_SECONDS", 0.01)


def refused(
    headers: dict[str, str], events: list[Event], reads: int = 0
) -> tuple[Client, list[Event]]:
    """The client of a request that is refused after `reads` parts, and what is left."""
    client, left = Client(list(events)), list[Event]()

    async def app() -> None:
        scope = http_scope(headers=headers)
        receive, send = discarding_unread(scope, client.receive, seen)
        for _ in range(reads):
            await receive()
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    async def seen(event: Any) -> None:
        if event["type"] == "http.response.start":
            left.extend(client.events)
        await client.send(event)

    run(app())
    assert client.status == 401 and client.body == b"no"
    return client, left


@pytest.mark.parametrize("headers", [LENGTH, CHUNKED])
@pytest.mark.parametrize("reads", [0, 1, 2, 3])
def test_the_rest_of_the_body_is_read_first(
    headers: dict[str, str], reads: int
) -> None:
    after = {"type": "http.request", "body": b"next"}
    _client, left = refused(headers, [PART, PART, chunk(b"abc"), after], reads)
    assert left == [after]


@pytest.mark.parametrize(
    "headers", [{}, {"content-length": "0"}, LENGTH | {"expect": "100-continue"}]
)
def test_a_body_that_will_not_come_is_not_awaited(headers: dict[str, str]) -> None:
    """RFC 9110 10.1.1: a refused client that waits for 100 Continue sends nothing."""
    _client, left = refused(headers, [PART])
    assert left == [PART]


def test_an_invited_body_is_read() -> None:
    headers = LENGTH | {"expect": "100-continue"}
    _client, left = refused(headers, [PART, PART, chunk(b"abc")], reads=1)
    assert left == []


@pytest.mark.parametrize("events", [[], [PART], [PART, GONE]])
def test_a_body_that_stops_is_not_awaited(events: list[Event]) -> None:
    refused(LENGTH, events)


def test_an_endless_body_is_read_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unread_body, "MOST_BYTES", 10)
    _client, left = refused(CHUNKED, [PART] * 7)
    assert left == [PART] * 3


def test_a_body_has_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread_body, "MOST_SECONDS", -1.0)
    _client, left = refused(CHUNKED, [PART] * 3)
    assert left == [PART] * 3


def test_the_parts_of_a_response_are_passed_on_unchanged() -> None:
    """Only its head waits for the body."""
    client = Client([PART, chunk(b"abc")])
    response: list[Event] = [
        {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]},
        {"type": "http.response.body", "body": b"1", "more_body": True},
        {"type": "http.response.body", "body": b"2"},
    ]

    async def app() -> None:
        scope = http_scope(headers=LENGTH)
        _receive, send = discarding_unread(scope, client.receive, client.send)
        for event in response:
            await send(event)

    run(app())
    assert client.sent == response


def test_a_body_that_another_task_reads_is_left_to_it() -> None:
    """Two readers would take parts from each other."""
    client = Client()

    async def app() -> None:
        scope = http_scope(headers=LENGTH)
        receive, send = discarding_unread(scope, client.receive, client.send)
        reader = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        client.events.append(PART)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert client.events == [PART] and client.status == 200
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert client.events == [], "nobody reads it now"

    run(app())
