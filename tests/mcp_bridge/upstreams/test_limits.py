"""Places, rate and circuit breaker of one upstream server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any
from uuid import uuid4

import pytest
from mcp.shared.exceptions import MCPError

from accounts.rate_limits.window import PROCESS_WINDOWS, Limit
from mcp_bridge.access.catalogue import Upstream
from mcp_bridge.metrics import prometheus
from mcp_bridge.models import UpstreamServer
from mcp_bridge.upstreams import exchange, limits
from mcp_bridge.upstreams.limits import FAILURES, admitted, usage_of
from mcp_bridge.upstreams.problems import UpstreamProblem

BROKEN = UpstreamProblem("failed", "It failed.", breaks=True)


def upstream(**values: Any) -> Upstream:
    url = f"http://127.0.0.1:1/{uuid4().hex}"
    row = UpstreamServer(name="other", url=url, **values)
    return Upstream(7, "other", True, row, None)


async def call(server: Upstream, problem: UpstreamProblem | None = None) -> None:
    async with admitted(server):
        if problem is not None:
            raise problem


async def fail(server: Upstream, times: int) -> None:
    for _ in range(times):
        with pytest.raises(UpstreamProblem):
            await call(server, BROKEN)


async def refusal_of(server: Upstream) -> str:
    with pytest.raises(UpstreamProblem) as refused:
        await call(server)
    return refused.value.code


Probe = Callable[[Upstream], Coroutine[Any, Any, None]]


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Exception | None]]:
    """The outcomes of the next probes."""
    outcomes: list[Exception | None] = []

    async def probe(server: Upstream) -> None:
        await asyncio.sleep(0)
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    monkeypatch.setattr(limits, "probe", probe)
    yield outcomes


def test_a_call_more_than_the_places_is_refused() -> None:
    async def run() -> str:
        server = upstream(max_concurrency=1)
        async with admitted(server):
            code = await refusal_of(server)
        await call(server)
        return code

    assert asyncio.run(run()) == "busy"


def test_a_cancelled_call_frees_its_place() -> None:
    async def run() -> int:
        server = upstream(max_concurrency=1)

        async def hang() -> None:
            async with admitted(server):
                await asyncio.sleep(60)

        task = asyncio.create_task(hang())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return usage_of(server).running

    assert asyncio.run(run()) == 0


def test_calls_per_minute_are_counted_for_all_users() -> None:
    async def run() -> None:
        server = upstream(calls_per_minute=2)
        await call(server)
        await call(server)
        with pytest.raises(UpstreamProblem, match="allows 2 calls per minute"):
            await call(server)

    PROCESS_WINDOWS.counts.pop("upstream 7", None)
    asyncio.run(run())


def test_failures_in_a_row_open_the_breaker() -> None:
    async def run() -> str:
        server = upstream()
        await fail(server, FAILURES)
        return await refusal_of(server)

    assert asyncio.run(run()) == "paused"


@pytest.mark.parametrize("between", [None, UpstreamProblem("forbidden", "No.")])
def test_an_answer_between_failures_keeps_it_closed(
    between: UpstreamProblem | None,
) -> None:
    async def run() -> None:
        server = upstream()
        await fail(server, FAILURES - 1)
        await asyncio.gather(call(server, between), return_exceptions=True)
        await fail(server, FAILURES - 1)
        await call(server)

    asyncio.run(run())


@pytest.mark.parametrize("code", ["busy", "credential"])
def test_a_problem_that_says_nothing_of_the_server_keeps_the_count(code: str) -> None:
    """Such a call was not sent, or was not for the server to decide."""

    async def run() -> str:
        server = upstream()
        await fail(server, FAILURES - 1)
        problem = UpstreamProblem(code, "No.")
        await asyncio.gather(call(server, problem), return_exceptions=True)
        await fail(server, 1)
        return await refusal_of(server)

    assert asyncio.run(run()) == "paused"


def test_one_trial_closes_it_and_others_do_not_wait(
    probes: list[Exception | None],
) -> None:
    async def run() -> list[Any]:
        server = upstream()
        await fail(server, FAILURES)
        usage_of(server).breaker.open_until = 0.0
        calls = [call(server) for _ in range(3)]
        return await asyncio.gather(*calls, return_exceptions=True)

    probes.append(None)
    first, *others = asyncio.run(run())
    assert first is None
    assert [other.code for other in others] == ["paused", "paused"]


def test_a_trial_that_fails_doubles_the_pause(probes: list[Exception | None]) -> None:
    """Up to a minute; one that works begins again."""

    async def run() -> list[float]:
        server, pauses = upstream(), []
        await fail(server, FAILURES)
        breaker = usage_of(server).breaker
        for _ in range(5):
            pauses.append(breaker.pause)
            breaker.open_until = 0.0
            assert await refusal_of(server) == "failed"
        pauses.append(breaker.pause)
        breaker.open_until = 0.0
        await call(server)
        await fail(server, FAILURES - 1)
        await call(server)
        return pauses

    probes.extend([*[BROKEN] * 5, None])
    assert asyncio.run(run()) == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


def test_a_refused_probe_shows_that_the_server_works(
    probes: list[Exception | None],
) -> None:
    async def run() -> None:
        server = upstream()
        await fail(server, FAILURES)
        usage_of(server).breaker.open_until = 0.0
        await call(server)

    probes.append(UpstreamProblem("credential", "No."))
    asyncio.run(run())


def test_a_corrected_url_has_no_failures() -> None:
    async def run() -> None:
        server = upstream()
        await fail(server, FAILURES)
        server.row.url = "http://127.0.0.1:2/mcp"
        await call(server)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("protocol", "method"),
    [
        ("2026-07-28", "server/discover"),
        ("2025-11-25", "tools/list"),
        ("", "tools/list"),
    ],
)
def test_a_probe_is_a_request_that_every_server_answers(
    monkeypatch: pytest.MonkeyPatch, protocol: str, method: str
) -> None:
    sent: list[tuple[str, float]] = []

    async def request(
        _server: Upstream, asked: str, _params: Any, seconds: float
    ) -> Any:
        sent.append((asked, seconds))
        raise MCPError(-32601, "unknown")

    monkeypatch.setattr(exchange, "MODERN", "2026-07-28")
    monkeypatch.setattr(exchange, "known_protocol", lambda server: protocol)
    monkeypatch.setattr(exchange, "request", request)
    asyncio.run(limits.probe(upstream()))
    assert sent == [(method, limits.PROBE_SECONDS)]


def test_one_server_has_one_count_in_this_process() -> None:
    async def run() -> list[float]:
        key, limit = f"upstream {uuid4().hex}", Limit(1, 60)
        return [await limits.count_here(key, limit) for _ in range(2)]

    first, second = asyncio.run(run())
    assert first == 0 and 0 < second <= 2 * 60


def test_the_limit_is_told_with_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def count(_key: str, _limit: Limit) -> float:
        return 0.2

    monkeypatch.setattr(limits.COUNTING, "count", count)
    text = "The upstream server other allows 5 calls per minute. Try again in 1 s."
    with pytest.raises(UpstreamProblem, match=f"^{text}$"):
        asyncio.run(call(upstream(calls_per_minute=5)))


def test_a_pause_that_is_over_names_a_second(probes: list[Exception | None]) -> None:
    """While another call tries."""

    async def story() -> str:
        server = upstream()
        await fail(server, FAILURES)
        breaker = usage_of(server).breaker
        breaker.open_until, breaker.trying = 0.0, True
        with pytest.raises(UpstreamProblem) as refused:
            await call(server)
        return refused.value.text

    text = asyncio.run(story())
    assert "failed 5 times in a row" in text and text.endswith("Try again in 1 s.")


def test_a_call_is_counted_for_its_server_and_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted: list[tuple[str, Limit]] = []

    async def count(key: str, limit: Limit) -> float:
        counted.append((key, limit))
        return 0.0

    monkeypatch.setattr(limits.COUNTING, "count", count)
    asyncio.run(call(upstream(calls_per_minute=9)))
    asyncio.run(call(upstream()))
    assert counted == [("upstream 7", Limit(9, 60))]


def test_each_call_frees_its_own_place() -> None:
    async def run() -> list[int]:
        server = upstream(max_concurrency=3)
        found = []
        async with admitted(server):
            async with admitted(server):
                found.append(usage_of(server).running)
            found.append(usage_of(server).running)
        return [*found, usage_of(server).running]

    assert asyncio.run(run()) == [2, 1, 0]


def test_every_refusal_for_a_limit_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once each; a pause is no limit."""
    counted: list[str] = []
    monkeypatch.setattr(prometheus, "count_limit_exceeded", counted.append)

    async def run() -> None:
        server = upstream(max_concurrency=1)
        async with admitted(server):
            assert counted == []
            assert await refusal_of(server) == "busy"
        assert counted == ["calls of an upstream server"]
        limited = upstream(calls_per_minute=1)
        await call(limited)
        assert len(counted) == 1 and await refusal_of(limited) == "busy"
        assert counted == ["calls of an upstream server"] * 2
        await fail(server, FAILURES)
        assert await refusal_of(server) == "paused" and len(counted) == 2

    PROCESS_WINDOWS.counts.pop("upstream 7", None)
    asyncio.run(run())
