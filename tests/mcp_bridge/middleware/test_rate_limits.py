"""Rate limits at /mcp: what counts by which key, and without the shared store."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from limits.errors import StorageError

from accounts.rate_limits.errors import RateLimited
from accounts.rate_limits.window import PROCESS_WINDOWS, Limit
from mcp_bridge.middleware import rate_limits
from mcp_bridge.middleware.rate_limits import (
    AsyncSharedStore,
    admit,
    admit_refusal,
    async_shared_store,
    count_message,
    peek,
)
from mcp_bridge.server.concurrency_limits import ConcurrencyExceeded
from tests.support.asgi import Client, run
from tests.support.mcp_in_process import caller

pytestmark = pytest.mark.once
TWO = Limit(2, 60)


class Window:
    """Statistics of `limits`."""

    def __init__(self, reset_time: float) -> None:
        self.reset_time = reset_time


class Limiter:
    """Replaces the limiter of `limits` on a store of another host."""

    def __init__(self, resets_in: float = 30) -> None:
        self.counts: dict[str, int] = {}
        self.resets_in = resets_in
        self.away = False

    async def test(self, item: Any, key: str) -> bool:
        """Whether one more fits."""
        if self.away:
            raise StorageError(ConnectionError("away"))
        assert item.namespace == "portico"
        return bool(self.counts.get(key, 0) < item.amount)

    async def hit(self, item: Any, key: str) -> bool:
        """Count one if it fits."""
        fits = await self.test(item, key)
        self.counts[key] = self.counts.get(key, 0) + fits
        return fits

    async def get_window_stats(self, item: Any, key: str) -> Window:
        return Window(time.time() + self.resets_in)


@pytest.fixture
def limiter(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[Limiter]:
    """The settings name a store; it is a dictionary."""
    settings.VALKEY_URL = "valkey://store.example"
    replacement, opened = Limiter(), []

    def open_storage(kind: Any, url: str, **options: Any) -> str:
        opened.append((url, options))
        return "storage"

    monkeypatch.setattr(rate_limits, "open_storage", open_storage)
    monkeypatch.setattr(
        rate_limits, "SlidingWindowCounterRateLimiter", lambda store: replacement
    )
    async_shared_store.cache_clear()
    assert async_shared_store(settings.VALKEY_URL).limiter is replacement  # type: ignore[comparison-overlap]
    assert opened == [("async+redis://store.example", {"implementation": "redispy"})]
    yield replacement
    async_shared_store.cache_clear()


def test_without_a_store_this_process_counts() -> None:
    waits = [run(count_message("key", TWO)) for _ in range(3)]
    assert waits[:2] == [0.0, 0.0] and waits[2] > 0
    assert run(count_message("other", TWO)) == 0.0


def test_a_limit_that_is_off_counts_nothing() -> None:
    assert [run(count_message("key", None)) for _ in range(9)] == [0.0] * 9
    assert not PROCESS_WINDOWS.counts


def test_a_peek_counts_nothing() -> None:
    for _ in range(3):
        assert run(peek("key", TWO)) == 0.0
    assert not PROCESS_WINDOWS.counts
    for _ in range(2):
        run(count_message("key", TWO))
    assert run(peek("key", TWO)) > 0


def test_with_a_store_only_the_store_counts(limiter: Limiter) -> None:
    waits = [run(count_message("key", TWO)) for _ in range(3)]
    assert waits[:2] == [0.0, 0.0] and 29 < waits[2] <= 30
    assert 29 < run(peek("key", TWO)) <= 30 and run(peek("other", TWO)) == 0.0
    assert limiter.counts == {"key": 2} and not PROCESS_WINDOWS.counts


def test_a_store_never_asks_to_wait_less_than_a_second(limiter: Limiter) -> None:
    limiter.resets_in = -5
    assert [
        run(count_message("key", Limit(0, 60))),
        run(peek("key", Limit(0, 60))),
    ] == [
        1.0,
        1.0,
    ]


def test_without_its_store_this_process_counts(limiter: Limiter) -> None:
    """The token has been checked by then."""
    limiter.away = True
    waits = [run(count_message("key", TWO)) for _ in range(3)]
    assert waits[:2] == [0.0, 0.0] and waits[2] > 0
    assert run(peek("key", TWO)) > 0 and list(PROCESS_WINDOWS.counts) == ["key"]


@pytest.mark.parametrize("operation", ["hit", "wait"])
def test_a_store_that_failed_is_left_alone_for_a_moment(
    limiter: Limiter, operation: str
) -> None:
    """Otherwise every message would wait for its timeout."""
    store = AsyncSharedStore("valkey://store.example")
    limiter.away = True
    with pytest.raises(StorageError):
        run(getattr(store, operation)("key", TWO))
    limiter.away = False
    with pytest.raises(StorageError):
        run(getattr(store, operation)("key", TWO))
    store.health.retry_at = time.monotonic() - 1
    assert run(getattr(store, operation)("key", TWO)) == 0.0


def admitted(work: Any) -> RateLimited | None:
    try:
        run(work)
    except RateLimited as problem:
        return problem
    return None


def test_messages_count_by_token_and_by_user(settings: Any) -> None:
    """A second token of the same user has the rest of the user's share."""
    settings.LIMIT_MCP, settings.LIMIT_MCP_USER = "2/minute", "3/minute"
    first, second = caller(jti="one"), caller(jti="two")
    other = caller(jti="three", user_id=2)
    assert [admitted(admit(first)) is None for _ in range(3)] == [True, True, False]
    assert [admitted(admit(second)) is None for _ in range(2)] == [True, False]
    assert admitted(admit(other)) is None
    problem = admitted(admit(first))
    assert problem is not None and problem.status == 429
    assert str(problem) == "Too many messages; retry later." and problem.wait >= 1


def test_a_token_over_its_limit_does_not_use_up_the_users(settings: Any) -> None:
    settings.LIMIT_MCP, settings.LIMIT_MCP_USER = "1/minute", "2/minute"
    for _ in range(5):
        admitted(admit(caller(jti="one")))
    assert admitted(admit(caller(jti="two"))) is None


ADDRESS, NEIGHBOUR, ELSEWHERE = "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"


def test_a_refused_token_over_its_limit_spares_its_address(settings: Any) -> None:
    """A client that repeats an expired token must not use up its neighbours' share."""
    settings.LIMIT_MCP_REFUSED = "1/minute"
    results = [admitted(admit_refusal("expired", ADDRESS)) for _ in range(30)]
    assert results[0] is None and all(results[1:])
    assert admitted(admit_refusal("another", ADDRESS)) is None
    assert str(results[1]) == "Too many requests with invalid tokens."


def test_an_address_has_ten_times_the_limit_of_a_token(settings: Any) -> None:
    """All addresses of one /64 count together."""
    settings.LIMIT_MCP_REFUSED = "1/minute"
    results = [admitted(admit_refusal(f"token {n}", ADDRESS)) for n in range(11)]
    assert [found is None for found in results] == [True] * 10 + [False]
    assert admitted(admit_refusal("new", NEIGHBOUR)) is not None
    assert admitted(admit_refusal("new", ELSEWHERE)) is None


def test_an_address_over_its_limit_adds_no_keys(settings: Any) -> None:
    settings.LIMIT_MCP_REFUSED = "1/minute"
    for number in range(30):
        admitted(admit_refusal(f"token {number}", ADDRESS))
    assert len(PROCESS_WINDOWS.counts) == 11


def test_keys_hold_no_token(settings: Any) -> None:
    settings.LIMIT_MCP_REFUSED = "1/minute"
    run(admit_refusal("a secret", "192.0.2.1"))
    digest = hashlib.sha256(b"a secret").hexdigest()[:32]
    assert set(PROCESS_WINDOWS.counts) == {
        "mcp refused from 192.0.2.1",
        f"mcp refused {digest}",
    }


def test_refusals_without_a_limit_are_not_counted(settings: Any) -> None:
    settings.LIMIT_MCP_REFUSED = "off"
    for _ in range(30):
        run(admit_refusal("a", ADDRESS))
    assert not PROCESS_WINDOWS.counts


@pytest.mark.parametrize(
    ("problem", "status", "wait", "error"),
    [
        (RateLimited("slow", 1.2), 429, "2", "too_many_requests"),
        (ConcurrencyExceeded("full", 0), 503, "1", "temporarily_unavailable"),
    ],
)
def test_a_refusal_says_when_to_retry(
    problem: RateLimited, status: int, wait: str, error: str
) -> None:
    client = Client()
    run(rate_limits.too_many_requests(problem).send(client.send))
    assert (client.status, client.headers["retry-after"]) == (status, wait)
    assert client.json == {"error": error, "error_description": str(problem)}
