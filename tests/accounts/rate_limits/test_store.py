"""The shared store: skipped while it is away, asked with short timeouts."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest
from limits.errors import StorageError
from limits.storage import RedisStorage

from accounts.rate_limits import store
from accounts.rate_limits.store import Backoff, SharedStore, limits_item, redis_url
from accounts.rate_limits.window import Limit

pytestmark = pytest.mark.once
LIMIT = Limit(7, 60)


class Limiter:
    """Answers as told; `reset` seconds remain in its window."""

    def __init__(self) -> None:
        self.free, self.reset, self.calls = True, 30.0, list[str]()

    def hit(self, item: Any, key: str) -> bool:
        self.calls.append(f"hit {key} {item.amount}/{item.get_expiry()}")
        return self.free

    def test(self, item: Any, key: str) -> bool:
        self.calls.append(f"test {key} {item.amount}/{item.get_expiry()}")
        return self.free

    def get_window_stats(self, item: Any, key: str) -> Any:
        self.calls.append(f"stats {key} {item.amount}/{item.get_expiry()}")
        return type("Stats", (), {"reset_time": time.time() + self.reset})


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Any:
    opened: list[Any] = []
    monkeypatch.setattr(store, "open_storage", lambda *about: opened.append(about))
    limiter = Limiter()
    monkeypatch.setattr(store, "SlidingWindowCounterRateLimiter", lambda _s: limiter)
    made = SharedStore("valkey://h:1/2")
    assert opened == [(RedisStorage, "redis://h:1/2")]
    return made


@pytest.mark.parametrize(("verb", "call"), [("hit", "hit"), ("wait", "test")])
def test_a_store_answers_with_seconds(shared: Any, verb: str, call: str) -> None:
    """`wait` counts nothing."""
    assert getattr(shared, verb)("a", LIMIT) == 0.0
    assert shared.limiter.calls == [f"{call} a 7/60"]
    shared.limiter.free = False
    assert 29 < getattr(shared, verb)("a", LIMIT) <= 30
    assert shared.limiter.calls[1:] == [f"{call} a 7/60", "stats a 7/60"]
    shared.limiter.reset = -3.0
    assert getattr(shared, verb)("a", LIMIT) == 1.0


def test_items_have_a_namespace() -> None:
    """Other programs may use the same store."""
    item = limits_item(LIMIT)
    assert (item.amount, item.get_expiry(), item.namespace) == (7, 60, "portico")


@pytest.mark.parametrize("verb", ["hit", "wait"])
def test_an_unavailable_store_is_skipped_for_a_while(
    shared: Any, verb: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """It is logged once, and once more when it is back."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    calls = shared.limiter.calls

    def fails(item: Any, key: str) -> bool:
        calls.append("failed")
        raise StorageError(ConnectionError("refused"))

    ask = getattr(shared, verb)
    name = "hit" if verb == "hit" else "test"
    monkeypatch.setattr(shared.limiter, name, fails)
    with caplog.at_level(logging.WARNING):
        for at, tried in ((1000.0, 1), (1001.9, 1), (1002.0, 2), (1003.9, 2)):
            now = at
            with pytest.raises(StorageError):
                ask("a", LIMIT)
            assert calls == ["failed"] * tried
        monkeypatch.undo()
        monkeypatch.setattr(time, "monotonic", lambda: 1004.0)
        shared.limiter.free = True
        assert getattr(shared, verb)("a", LIMIT) == 0.0
    levels = [(r.levelname, r.message.partition(":")[0]) for r in caplog.records]
    assert levels == [
        ("ERROR", "The rate limit store is unavailable"),
        ("WARNING", "The rate limit store is available again"),
    ]
    assert shared.health.retry_at == 0.0


def test_each_change_of_state_is_reported_once() -> None:
    seen: list[bool] = []
    health = Backoff(seen.append)
    for _ in range(2):
        health.retry_at = 0.0 if health.retry_at == 0.0 else 1.0
        with pytest.raises(StorageError), health:
            raise StorageError(ConnectionError("away"))
        assert seen == [True, False], "by the first failure"
    for _ in range(2):
        health.retry_at = min(health.retry_at, 1.0)
        with health:
            pass
        assert seen == [True, False, True]


def test_no_store_is_no_missing_store() -> None:
    assert store.answers("") and not store.answers("redis://127.0.0.1:1")


@pytest.mark.parametrize("found", [True, False])
def test_a_store_answers_as_its_library_says(
    monkeypatch: pytest.MonkeyPatch, found: bool
) -> None:
    asked: list[str] = []
    storage = SimpleNamespace(check=lambda: found)

    def opened(url: str) -> Any:
        asked.append(url)
        return SimpleNamespace(limiter=SimpleNamespace(storage=storage))

    monkeypatch.setattr(store, "shared_store", opened)
    assert store.answers("valkey://h") is found and asked == ["valkey://h"]


def test_other_errors_do_not_count_as_an_outage() -> None:
    health = Backoff()
    with pytest.raises(KeyError), health:
        raise KeyError("a programming error")
    assert health.retry_at == 0.0
    health.retry_at = 1.0
    with pytest.raises(KeyError), health:
        raise KeyError("a programming error")
    assert health.retry_at == 1.0


def test_a_storage_is_opened_with_timeouts() -> None:
    found: dict[str, Any] = {}

    def kind(url: str, **options: Any) -> str:
        found.update(options, url=url)
        return "opened"

    more = {"socket_timeout": 99.0, "health_check_interval": 5}
    assert store.open_storage(kind, "redis://h", **more) == "opened"
    assert found == {
        "url": "redis://h",
        "health_check_interval": 5,
        "wrap_exceptions": True,
        "socket_timeout": 1.0,
        "socket_connect_timeout": 1.0,
    }


@pytest.mark.parametrize(
    ("url", "opened"),
    [
        ("valkey://h/valkey", "redis://h/valkey"),
        ("valkeys://h", "rediss://h"),
        ("redis://valkey", "redis://valkey"),
    ],
)
def test_one_library_serves_both_kinds(url: str, opened: str) -> None:
    assert redis_url(url) == opened


def test_a_process_opens_a_store_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SharedStore", lambda url: object())
    store.shared_store.cache_clear()
    one = store.shared_store("valkey://one")
    assert store.shared_store("valkey://one") is one
    assert store.shared_store("valkey://two") is not one
    store.shared_store.cache_clear()
