"""Streams from threads: in constant memory, closed with their reader."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections

from accounts.http.streaming import run_on_thread, stream_from_thread

pytestmark = pytest.mark.once


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that closed their database connections."""
    names: list[str] = []

    def close_all() -> None:
        names.append(threading.current_thread().name)

    monkeypatch.setattr(connections, "close_all", close_all)
    return names


def test_a_generator_runs_on_one_other_thread(closed: list[str]) -> None:
    """Also its end; the connections of that thread are closed."""
    threads: list[str] = []

    def parts() -> Iterator[bytes]:
        try:
            for part in (b"a", b"b"):
                threads.append(threading.current_thread().name)
                yield part
        finally:
            threads.append(threading.current_thread().name)

    async def read() -> list[bytes]:
        return [part async for part in stream_from_thread(parts)]

    assert asyncio.run(read()) == [b"a", b"b"]
    assert set(threads) == {"portico-stream_0"} and len(threads) == 3
    wait_for(closed)
    assert closed == ["portico-stream_0"]


def wait_for(closed: list[str]) -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("portico-stream"):
            thread.join(5)


def test_a_stream_that_is_left_early_is_closed(closed: list[str]) -> None:
    ended: list[str] = []

    def parts() -> Iterator[bytes]:
        try:
            while True:
                yield b"a"
        finally:
            ended.append("closed")

    async def leave() -> None:
        stream: Any = stream_from_thread(parts)
        assert await anext(stream) == b"a"
        await stream.aclose()

    asyncio.run(leave())
    wait_for(closed)
    assert ended == ["closed"] and closed == ["portico-stream_0"]


def test_work_on_a_thread_closes_its_connections(closed: list[str]) -> None:
    """After its end, an error, or a reader who stopped."""
    here = threading.current_thread().name

    def work(fails: bool = False) -> Iterator[str]:
        yield threading.current_thread().name
        if fails:
            raise KeyError("x")

    names = list(run_on_thread(work))
    assert len(names) == 1 and names != [here] and closed == names
    with pytest.raises(KeyError):
        list(run_on_thread(lambda: work(True)))
    assert len(closed) == 2 and here not in closed
