"""Sliding windows of one process, and their settings."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis
from django.conf import settings
from django.test import override_settings

from accounts.checks import settings_are_consistent
from accounts.http.client_address import rate_limit_prefix
from accounts.rate_limits import middleware, window
from accounts.rate_limits.errors import RateLimited
from accounts.rate_limits.middleware import ADDRESS_FACTOR
from accounts.rate_limits.store import shared_store
from accounts.rate_limits.window import (
    PROCESS_WINDOWS,
    Limit,
    SlidingWindow,
    parse_limit,
)
from mcp_bridge.middleware import rate_limits as of_mcp
from tests.support.subprocess_python import python_output
from tests.support.valkey import valkey

pytestmark = pytest.mark.once
HOUR = 3600.0
HALF_IMPORTED = """
import os, sys, threading
import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()
from accounts.rate_limits.store import shared_store
from mcp_bridge.middleware.rate_limits import async_shared_store

def first_use(store):
    half, go_on = threading.Event(), threading.Event()

    def waits(event, about):
        if event == "import" and about[0] == "redis.asyncio":
            half.set()
            go_on.wait(10)

    sys.addaudithook(waits)
    threading.Thread(target=__import__, args=["redis"]).start()
    assert half.wait(10) and not hasattr(sys.modules["redis"], "__version__")
    threading.Timer(0.2, go_on.set).start()
    print(type(store("valkey://127.0.0.1:1")).__name__, flush=True)

for store in (shared_store, async_shared_store):
    if os.fork() == 0:
        first_use(store)
        os._exit(0)
    assert os.wait()[1] == 0, store
"""
"""Imports redis in another thread, stopped at its first line; a process per store."""


def test_a_window_slides() -> None:
    """The previous window counts by its overlap; waiting for Retry-After is enough."""
    windows, ten = SlidingWindow(), Limit(10, 60)
    assert [windows.hit("a", ten, HOUR) for _ in range(10)] == [0.0] * 10
    wait = windows.hit("a", ten, HOUR)
    assert 60 < wait < 70 and windows.hit("b", ten, HOUR) == 0
    assert windows.hit("a", ten, HOUR + wait - 1) > 0
    assert windows.hit("a", ten, HOUR + wait + 0.1) == 0
    again = windows.hit("a", ten, HOUR + wait + 0.2)
    assert 0 < again < 60
    assert windows.hit("a", ten, HOUR + wait + again + 0.3) == 0
    assert windows.hit("a", ten, HOUR + 600) == 0


def test_counts_are_read_and_written_under_the_lock() -> None:
    """Two threads must not count one request."""
    windows, held = SlidingWindow(), []

    class Watched(OrderedDict[str, Any]):
        def get(self, *about: Any) -> Any:
            held.append(windows.lock.locked())
            return super().get(*about)

        def __setitem__(self, key: str, value: Any) -> None:
            held.append(windows.lock.locked())
            super().__setitem__(key, value)

    windows.counts = Watched()
    assert windows.hit("a", Limit(1, 60), HOUR) == 0 and held == [True] * 2
    assert windows.wait("a", Limit(1, 60), HOUR) > 0 and held == [True] * 3
    assert not windows.lock.locked()


def test_a_flood_of_keys_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(window, "MAX_KEYS", 10)
    windows = SlidingWindow()
    for n in range(100):
        windows.hit(str(n), Limit(1, 60))
    assert len(windows.counts) <= 10 and "99" in windows.counts


@pytest.mark.parametrize("most", [1, 5])
def test_a_flood_of_keys_does_not_evict_those_in_use(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """The least recently used key goes first; a refused use counts as a use."""
    monkeypatch.setattr(window, "MAX_KEYS", 10)
    windows, limit = SlidingWindow(), Limit(most, 60)
    for _ in range(most):
        windows.hit("password 192.0.2.1", limit, HOUR)
    for n in range(100):
        windows.hit(str(n), limit, HOUR)
        assert windows.hit("password 192.0.2.1", limit, HOUR) > 0


def test_a_finished_flood_does_not_evict_a_longer_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One address may create many short windows within its limit."""
    monkeypatch.setattr(window, "MAX_KEYS", 10)
    windows, hourly = SlidingWindow(), Limit(1, 3600)
    windows.hit("mail 192.0.2.1", hourly, HOUR)
    for n in range(100):
        windows.hit(str(n), Limit(1, 60), HOUR + 60 * n)
        assert windows.wait("mail 192.0.2.1", hourly, HOUR + 60 * n) > 0 or n >= 59
    assert len(windows.counts) <= 11


def test_a_check_without_a_hit_counts_nothing() -> None:
    """No key is stored for it."""
    windows, one = SlidingWindow(), Limit(1, 60)
    assert windows.wait("a", one, HOUR) == 0 and not windows.counts
    assert windows.hit("a", one, HOUR) == 0
    assert windows.wait("a", one, HOUR) == windows.hit("a", one, HOUR) > 0


STORES = ["", "valkey"]


@pytest.fixture
def keys(request: pytest.FixtureRequest) -> Iterator[Callable[[], int]]:
    """The number of stored keys, in this process or in a real Valkey."""
    if not request.param:
        yield lambda: len(PROCESS_WINDOWS.counts)
        return
    with valkey() as running, override_settings(VALKEY_URL=running.connection_url):
        url = re.sub(r"\Avalkey", "redis", running.connection_url)
        with redis.Redis.from_url(url) as client:
            yield lambda: int(client.dbsize())
        # The store is kept for the process; its connections would be left open.
        store: Any = shared_store(running.connection_url).limiter.storage
        store.storage.close()


def is_refused(work: Callable[[], Any]) -> bool:
    """Whether the limit refuses this use."""
    try:
        work()
    except RateLimited:
        return True
    return False


@pytest.mark.parametrize("keys", STORES, indirect=True)
@pytest.mark.parametrize(
    ("issued_via", "setting"),
    [("token", "TOKEN"), ("introspect", "INTROSPECT"), ("device", "DEVICE")],
)
def test_a_refused_address_adds_no_keys(
    keys: Callable[[], int], issued_via: str, setting: str
) -> None:
    """Other addresses are still counted."""
    with override_settings(**{f"LIMIT_{setting}": "2/day"}):
        waits = [
            is_refused(
                partial(middleware.check_rate, issued_via, "192.0.2.1", f"client-{n}")
            )
            for n in range(50)
        ]
        assert waits == [False] * 2 * ADDRESS_FACTOR + [True] * (
            50 - 2 * ADDRESS_FACTOR
        )
        before = keys()
        assert before <= 2 * (2 * ADDRESS_FACTOR + 1)
        assert is_refused(
            lambda: middleware.check_rate(issued_via, "192.0.2.1", "another")
        )
        assert keys() == before
        assert not is_refused(
            lambda: middleware.check_rate(issued_via, "192.0.2.2", "client-1")
        )
        assert keys() > before


@pytest.mark.parametrize("keys", STORES, indirect=True)
def test_a_client_over_its_limit_does_not_use_up_its_address(
    keys: Callable[[], int],
) -> None:
    """Refusals of one client do not count for its address."""
    with override_settings(LIMIT_TOKEN="2/day"):
        for _ in range(5 * ADDRESS_FACTOR):
            is_refused(lambda: middleware.check_rate("token", "192.0.2.1", "loud"))
        assert not is_refused(
            lambda: middleware.check_rate("token", "192.0.2.1", "quiet")
        )


@pytest.mark.parametrize("keys", STORES, indirect=True)
def test_wrong_tokens_of_a_refused_address_add_no_keys(keys: Callable[[], int]) -> None:
    """At /mcp each wrong token is counted by itself too."""

    async def many() -> list[bool]:
        waits = []
        for number in range(50):
            try:
                await of_mcp.admit_refusal(f"e30.e30.{number}", "192.0.2.1")
            except RateLimited:
                waits.append(True)
            else:
                waits.append(False)
        if settings.VALKEY_URL:
            shared: Any = of_mcp.async_shared_store(settings.VALKEY_URL).limiter.storage
            await shared.bridge.storage.aclose()
        return waits

    of_mcp.async_shared_store.cache_clear()
    with override_settings(LIMIT_MCP_REFUSED="2/day"):
        assert asyncio.run(many()) == [False] * 2 * ADDRESS_FACTOR + [True] * (
            50 - 2 * ADDRESS_FACTOR
        )
    assert keys() <= 2 * (2 * ADDRESS_FACTOR + 1)


def test_the_form_of_a_limit() -> None:
    assert parse_limit("120/minute") == Limit(120, 60) and parse_limit("off") is None
    assert parse_limit("7/day") == Limit(7, 86400)
    assert rate_limit_prefix("2001:db8:1:2:3::4") == "2001:db8:1:2::"
    assert rate_limit_prefix("192.0.2.1") == "192.0.2.1" and rate_limit_prefix("") == ""


def test_several_workers_without_a_store_get_a_warning() -> None:
    with override_settings(WORKERS=3):
        assert "portico.W005" in [found.id for found in settings_are_consistent()]
    with override_settings(WORKERS=3, VALKEY_URL="redis://h", MCP_SESSIONS=False):
        assert settings_are_consistent() == []


def test_two_first_uses_of_the_store_at_once() -> None:
    """/readyz imports redis in a thread while the first message arrives."""
    assert python_output(HALF_IMPORTED) == "SharedStore\nAsyncSharedStore\n"


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("9/second", Limit(9, 1)),
        ("9/minute", Limit(9, 60)),
        ("9/hour", Limit(9, 3600)),
        ("9/day", Limit(9, 86400)),
        ("off", None),
    ],
)
def test_every_unit_of_a_limit(text: str, limit: Limit | None, settings: Any) -> None:
    settings.LIMIT_DEVICE = text
    assert parse_limit(text) == limit == window.configured_limit("LIMIT_DEVICE")
    assert Limit(3, 60).times(10) == Limit(30, 60)


def test_a_window_counts_to_exactly_its_limit() -> None:
    """At the start of the next window, the full count of the last one remains."""
    windows, two = SlidingWindow(), Limit(2, 60)
    assert [windows.hit("a", two, HOUR) for _ in range(2)] == [0.0, 0.0]
    assert windows.hit("a", two, HOUR) == 60 * 1.5
    assert windows.hit("a", two, HOUR + 60) == 30
    assert windows.hit("a", two, HOUR + 89) == pytest.approx(1)
    assert windows.hit("a", two, HOUR + 90) == 0
    assert windows.hit("a", two, HOUR + 90) > 0


def test_the_window_before_the_last_counts_nothing() -> None:
    windows, one = SlidingWindow(), Limit(1, 60)
    assert windows.hit("a", one, HOUR + 59) == 0
    assert windows.hit("a", one, HOUR + 60) > 0
    assert windows.hit("a", one, HOUR + 120) == 0


def test_a_counted_key_expires_after_the_next_window() -> None:
    """Until then its count may still overlap."""
    windows = SlidingWindow()
    windows.hit("a", Limit(1, 60), HOUR)
    assert windows.counts["a"][3] == HOUR + 120


def test_expired_keys_are_evicted_before_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A key at its expiry has expired; half of the keys stay otherwise."""
    monkeypatch.setattr(window, "MAX_KEYS", 4)
    windows, one = SlidingWindow(), Limit(1, 60)
    windows.hit("hourly", Limit(1, 3600), HOUR)
    for n in range(3):
        windows.hit(f"old-{n}", one, HOUR)
    assert len(windows.counts) == 4
    windows.hit("new", one, HOUR + 120)
    assert list(windows.counts) == ["hourly", "new"]
    for n in range(3):
        windows.hit(f"next-{n}", one, HOUR + 120)
    assert list(windows.counts) == ["next-1", "next-2"] and window.MAX_KEYS == 4


def test_a_process_keeps_a_hundred_thousand_keys() -> None:
    assert window.MAX_KEYS == 100_000
