"""Sliding windows of one process, and what the settings say."""

from __future__ import annotations

import pytest
from django.test import override_settings

from accounts import limits
from accounts.checks import settings_fit_together
from accounts.limits import Limit, Windows, parsed
from accounts.proxies import neighbourhood
from tests.fresh import printed

pytestmark = pytest.mark.once
HOUR = 3600.0
HALF_IMPORTED = """
import os, sys, threading
import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()
from accounts import limits
from mcp_bridge import limits as of_mcp

half, go_on = threading.Event(), threading.Event()

def waits(event, about):
    if event == "import" and about[0] == "redis.asyncio":
        half.set()
        go_on.wait(10)

sys.addaudithook(waits)
threading.Thread(target=__import__, args=["redis"]).start()
assert half.wait(10) and not hasattr(sys.modules["redis"], "__version__")
threading.Timer(0.2, go_on.set).start()
print(type({module}.shared("valkey://127.0.0.1:1")).__name__)
"""
"""redis as another thread has imported it up to its first line."""


def test_a_window_slides() -> None:
    """ours: the last window counts by its overlap; the wait told is enough."""
    windows, ten = Windows(), Limit(10, 60)
    assert [windows.hit("a", ten, HOUR) for _ in range(10)] == [0.0] * 10
    wait = windows.hit("a", ten, HOUR)
    assert 60 < wait < 70 and windows.hit("b", ten, HOUR) == 0
    assert windows.hit("a", ten, HOUR + wait - 1) > 0
    assert windows.hit("a", ten, HOUR + wait + 0.1) == 0
    again = windows.hit("a", ten, HOUR + wait + 0.2)
    assert 0 < again < 60
    assert windows.hit("a", ten, HOUR + wait + again + 0.3) == 0
    assert windows.hit("a", ten, HOUR + 600) == 0


def test_a_flood_of_keys_does_not_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ours: the older half is forgotten."""
    monkeypatch.setattr(limits, "MOST_KEYS", 10)
    windows = Windows()
    for n in range(100):
        windows.hit(str(n), Limit(1, 60))
    assert len(windows.counts) <= 10 and "99" in windows.counts


def test_the_form_of_a_limit() -> None:
    """ours."""
    assert parsed("120/minute") == Limit(120, 60) and parsed("off") is None
    assert parsed("7/day") == Limit(7, 86400)
    assert neighbourhood("2001:db8:1:2:3::4") == "2001:db8:1:2::"
    assert neighbourhood("192.0.2.1") == "192.0.2.1" and neighbourhood("") == ""


def test_several_workers_without_a_store_are_told() -> None:
    """ours: portico.W005, loud."""
    with override_settings(WORKERS=3):
        assert "portico.W005" in [found.id for found in settings_fit_together()]
    with override_settings(WORKERS=3, VALKEY_URL="redis://h", MCP_SESSIONS=False):
        assert settings_fit_together() == []


@pytest.mark.parametrize("module", ["limits", "of_mcp"])
def test_two_that_need_the_store_first_at_once(module: str) -> None:
    """ours: /readyz imports redis in a thread while the first message comes in."""
    assert printed(HALF_IMPORTED.replace("{module}", module)) == "Shared\n"
