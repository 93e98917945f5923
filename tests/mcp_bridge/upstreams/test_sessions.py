"""Sessions at upstream servers: bounded, and ended with a DELETE."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mcp_bridge.access.catalogue import Upstream
from mcp_bridge.models import CredentialMode, UpstreamCredential, UpstreamServer
from mcp_bridge.upstreams import exchange
from mcp_bridge.upstreams.exchange import Session
from tests.support.mcp_in_process import caller

URL = "https://up.example/mcp"
ACME = Upstream(1, "acme", True, UpstreamServer(name="acme", url=URL), None)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The ids of sessions that servers were told to end."""
    found: list[str] = []

    async def delete(upstream: Upstream, headers: Any) -> None:
        found.append(headers["mcp-session-id"])

    async def initialize(
        upstream: Upstream, session: Session, credential: Any, to: Any
    ) -> None:
        session.id, session.version = to.session, "2025-11-25"
        session.used_at = time.monotonic()

    monkeypatch.setattr(exchange, "delete", delete)
    monkeypatch.setattr(exchange, "_initialize", initialize)
    exchange._sessions.clear()
    yield found
    exchange._sessions.clear()


async def opened(name: str) -> Session:
    """The session for the session `name` of a client."""
    client = SimpleNamespace(session=name, capabilities={})
    return await exchange.open_session(ACME, None, {}, cast(Any, client))


def test_the_least_recently_used_session_is_ended_above_the_limit(
    ended: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one that waits for an answer."""
    monkeypatch.setattr(exchange, "MAX_SESSIONS", 3)

    async def story() -> None:
        for name in ("a", "b", "c"):
            await opened(name)
        (await opened("b")).running = 1
        await opened("a")  # now b is the least recently used but one
        await opened("d")
        await exchange.background_done()
        assert ended == ["c"]
        await opened("e")
        await exchange.background_done()
        assert ended == ["c", "a"]

    asyncio.run(story())


def test_idle_sessions_are_ended_and_all_at_the_end(ended: list[str]) -> None:
    async def story() -> None:
        idle, busy = await opened("idle"), await opened("busy")
        await opened("new")
        idle.used_at = busy.used_at = time.monotonic() - exchange.IDLE_SECONDS - 1
        busy.running = 1
        await exchange.close_idle_sessions()
        await exchange.background_done()
        assert ended == ["idle"]
        await exchange.close_sessions()
        assert ended == ["idle", "busy", "new"] and not exchange._sessions

    asyncio.run(story())


def test_the_end_of_a_clients_session_ends_what_it_opened(ended: list[str]) -> None:
    async def story() -> None:
        for name in ("mine", "other", ""):
            await opened(name)
        exchange.close_sessions_of_client("mine")
        exchange.close_sessions_of_client("")
        exchange.close_sessions_of_client("mine")
        await exchange.background_done()
        assert ended == ["mine"]
        assert [key[-1] for key in exchange._sessions] == ["other", ""]

    asyncio.run(story())


def test_a_server_that_does_not_confirm_delays_the_end_shortly(
    ended: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(upstream: Upstream, headers: Any) -> None:
        await asyncio.sleep(30)

    monkeypatch.setattr(exchange, "delete", hangs)
    monkeypatch.setattr(exchange, "CLOSING_SECONDS", 0.01)

    async def story() -> None:
        await opened("a")
        async with asyncio.timeout(5):
            await exchange.close_sessions()

    asyncio.run(story())


async def key_of(
    session: str, user: int | None, credential: UpstreamCredential | None = None
) -> Session:
    client = SimpleNamespace(session=session, capabilities={})
    principal = None if user is None else caller(user_id=user)
    server = replace(ACME, credential=credential)
    return await exchange.open_session(server, principal, {}, cast(Any, client))


def test_a_session_belongs_to_who_may_use_it(ended: list[str]) -> None:
    """Without a client's session the capabilities are empty: it can be shared."""

    async def story() -> None:
        assert await key_of("a", 1) is await key_of("a", 1)
        assert await key_of("a", 1) is not await key_of("a", 2)
        assert await key_of("", 1) is await key_of("", 2)
        renewed = UpstreamCredential(version=2)
        assert await key_of("", 1) is not await key_of("", 1, renewed)

    asyncio.run(story())


def test_the_session_used_last_says_what_its_server_is(ended: list[str]) -> None:
    """After a new credential a client has two sessions for a while."""

    def info(server: Upstream, session: str) -> Any:
        return exchange.session_info(
            server, cast(Any, SimpleNamespace(session=session))
        )

    async def story() -> None:
        renewed = UpstreamCredential(version=2)
        (await key_of("a", 1)).info = {"release": 1}
        (await key_of("a", 1, renewed)).info = {"release": 2}
        (await key_of("b", 1)).info = {"release": 3}
        assert [info(ACME, name) for name in "ab"] == [{"release": 2}, {"release": 3}]
        await key_of("a", 1)
        assert info(ACME, "a") == {"release": 1}
        assert info(ACME, "c") == info(replace(ACME, pk=2), "a") == {}

    asyncio.run(story())


def test_a_session_of_an_assertion_is_for_its_user(ended: list[str]) -> None:
    async def story() -> None:
        ACME.row.credential_mode = CredentialMode.SIGNED_ASSERTION
        try:
            assert await key_of("", 1) is not await key_of("", 2)
            assert await key_of("", 1) is await key_of("", 1)
        finally:
            ACME.row.credential_mode = CredentialMode.NONE

    asyncio.run(story())


def test_a_session_that_the_server_lost_is_not_ended_again(ended: list[str]) -> None:
    """Nor one that never began."""

    async def story() -> None:
        (await opened("lost")).version = ""
        (await opened("")).used_at = time.monotonic()
        await exchange.close_sessions()
        assert ended == [] and not exchange._sessions

    asyncio.run(story())


def test_the_end_of_a_session_has_the_credential_of_its_last_caller(
    ended: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    async def headers(upstream: Upstream, principal: Any) -> dict[str, str]:
        asked.append(principal and principal.user_id)
        return {}

    async def story() -> None:
        await key_of("a", 5)
        monkeypatch.setattr(exchange, "credential_headers", headers)
        await exchange.close_sessions()
        assert (ended, asked) == (["a"], [5])

    asyncio.run(story())
