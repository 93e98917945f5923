"""File descriptors: the limit is raised, and the log says when they run out."""

from __future__ import annotations

import asyncio
import os
import resource
from typing import Any

import pytest

from mcp_bridge.http import descriptors
from mcp_bridge.http.descriptors import (
    DescriptorWatch,
    raise_limit,
    used_descriptors,
    watching_descriptors,
)
from tests.support.asgi import run

pytestmark = pytest.mark.once
NONE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limits", "raised"),
    [
        ((256, 1024), 1024),
        ((1024, 500_000), 65_536),
        ((1024, NONE), 65_536),
        ((100_000, 500_000), 100_000),
        ((4096, 4096), 4096),
        ((NONE, NONE), NONE),
    ],
)
def test_the_limit_is_raised_as_far_as_allowed(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], raised: int
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda *given: calls.append(given))
    assert raise_limit() == raised
    expected = (resource.RLIMIT_NOFILE, (raised, limits[1]))
    assert calls == ([] if raised == limits[0] else [expected])


def test_a_system_that_refuses_keeps_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_given: Any) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, NONE))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_limit() == 256


def test_descriptors_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    before = used_descriptors(9)
    with open(os.devnull):
        assert used_descriptors(9) == before + 1
    monkeypatch.setattr(descriptors, "FOLDER", "/no/such/folder")
    assert used_descriptors(9) == 9


def test_each_change_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watch = DescriptorWatch(100)
    for used in (10, 89, 90, 100, 95, 20, 30):
        monkeypatch.setattr(descriptors, "used_descriptors", lambda limit, n=used: n)
        watch.check()
    assert [(r.levelname, r.getMessage()[:34]) for r in caplog.records] == [
        ("ERROR", "90 of 100 file descriptors are in "),
        ("WARNING", "20 of 100 file descriptors are in "),
    ]
    assert "LimitNOFILE" in caplog.text


def test_a_server_watches_while_it_runs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(descriptors, "raise_limit", lambda: 1)

    async def story() -> None:
        async with watching_descriptors():
            await asyncio.sleep(0.01)

    run(story())
    assert len(caplog.records) == 1
    monkeypatch.setattr(descriptors, "raise_limit", lambda: NONE)
    run(story())
    assert len(caplog.records) == 1
    # Systems without /proc cannot count: no false alarm.
    monkeypatch.setattr(descriptors, "raise_limit", lambda: 1)
    monkeypatch.setattr(descriptors, "FOLDER", "/no/such/folder")
    run(story())
    assert len(caplog.records) == 1
