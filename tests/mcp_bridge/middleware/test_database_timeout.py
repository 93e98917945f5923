"""Requests to Django that wait for a silent database."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mcp_bridge.cache import decision_cache
from mcp_bridge.cache.decision_cache import DecisionCache
from mcp_bridge.cache.readers.base import DatabaseUnavailable, LogPosition
from mcp_bridge.middleware import database_timeout
from mcp_bridge.middleware.database_timeout import (
    CHECK_AFTER,
    DatabaseTimeoutMiddleware,
    GuardedSend,
)
from tests.support.asgi import Client, ask, http_scope, run

pytestmark = pytest.mark.once


class Database:
    """Replaces a frozen PostgreSQL, which a test cannot have."""

    def __init__(self, away: bool) -> None:
        self.away, self.asked = away, 0

    async def current_position(self) -> LogPosition:
        """The current position, if it answers."""
        self.asked += 1
        if self.away:
            raise DatabaseUnavailable("no answer within 5 s")
        return LogPosition("epoch", 1)


def response_of(
    monkeypatch: pytest.MonkeyPatch, database: Any, fails: bool = False
) -> Any:
    """The response to a client whose app answers after two checks."""
    memory = DecisionCache(database) if database else None
    monkeypatch.setattr(decision_cache, "decision_cache", memory)
    monkeypatch.setattr(database_timeout, "CHECK_AFTER", 0.001)
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while database and database.asked < 2 and not sent:
            await asyncio.sleep(0)
        if fails:
            raise TimeoutError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"late"})

    async def send(event: Any) -> None:
        sent.append(event)

    asyncio.run(DatabaseTimeoutMiddleware(app)({"type": "http"}, None, send))  # type: ignore[arg-type]
    return sent


@pytest.mark.spec("access is refused when a dependency fails")
def test_a_silent_database_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    """One response, with Retry-After; a late response is dropped."""
    head, body = response_of(monkeypatch, Database(away=True))
    assert head["status"] == 503 and b"nothing was decided" in body["body"]
    assert b"retry-after" in dict(head["headers"])


def test_a_slow_response_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports and exports may take long."""
    database = Database(away=False)
    assert response_of(monkeypatch, database)[0]["status"] == 200
    assert database.asked >= 2
    assert response_of(monkeypatch, None)[0]["status"] == 200


def test_an_exception_of_the_app_is_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(TimeoutError):
        response_of(monkeypatch, Database(away=False), fails=True)


def test_a_response_that_begins_during_the_check_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The check finds the database away, but too late."""
    client, asked = Client(), asyncio.Event()

    async def story() -> None:
        answer = asyncio.Event()

        async def away() -> bool:
            asked.set()
            await answer.wait()
            return True

        monkeypatch.setattr(database_timeout, "database_unavailable", away)
        monkeypatch.setattr(database_timeout, "CHECK_AFTER", 0.001)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await asked.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            answer.set()
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b"ours"})

        await DatabaseTimeoutMiddleware(app)({}, client.receive, client.send)

    run(story())
    assert (client.status, client.body) == (200, b"ours")


def test_no_check_follows_the_response(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        reply = GuardedSend(Client().send)
        reply.end()
        assert reply.alarm.cancelled() and reply.begun

    run(story())


def test_the_first_check_comes_after_the_pools_own_timeout() -> None:
    """The pool waits 5 seconds for a connection; its error page comes first."""
    assert 5 < CHECK_AFTER <= 7


class Replaced(Database):
    """A reader whose file was replaced."""

    was_replaced = True


@pytest.mark.parametrize(
    ("path", "status"),
    [("/admin/", 503), ("/oauth/token", 503), ("/healthz", 200), ("/readyz", 200)],
)
def test_a_replaced_file_is_served_to_nobody(
    monkeypatch: pytest.MonkeyPatch, path: str, status: int
) -> None:
    """Probes are answered: they say what to do."""
    memory: Any = DecisionCache(Replaced(away=False))  # type: ignore[arg-type]
    monkeypatch.setattr(decision_cache, "decision_cache", memory)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    client = ask(DatabaseTimeoutMiddleware(app), http_scope("GET", path))
    assert client.status == status
    assert ("retry-after" in client.headers) is (status == 503)
