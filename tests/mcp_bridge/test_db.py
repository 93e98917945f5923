"""Threads and connections of the ORM in asynchronous code."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from mcp_bridge import db

pytestmark = pytest.mark.once


@pytest.fixture
def did(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happened to the connections, and when the work ran."""
    found: list[str] = []
    monkeypatch.setattr(db, "close_old_connections", lambda: found.append("close"))
    connections = SimpleNamespace(close_all=lambda: found.append("close all"))
    monkeypatch.setattr(db, "connections", connections)
    return found


def test_stale_connections_are_closed_before_and_after(did: list[str]) -> None:
    def work(one: int, *, two: int) -> int:
        did.append("work")
        return one + two

    assert asyncio.run(db.in_database(work, 1, two=2)) == 3
    assert did == ["close", "work", "close"]
    assert db.closing_connections(work).__name__ == "work"


def test_connections_are_closed_after_an_error(did: list[str]) -> None:
    def work() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(db.in_database(work))
    assert did == ["close", "close"]


def test_work_runs_in_parallel_in_threads_of_our_own(did: list[str]) -> None:
    """Django's default would be one thread for the whole process."""
    barrier = threading.Barrier(8, timeout=5)

    def work() -> str:
        barrier.wait()
        return threading.current_thread().name

    async def told() -> list[str]:
        return await asyncio.gather(*(db.in_database(work) for _ in range(8)))

    names = asyncio.run(told())
    assert len(set(names)) == 8
    assert all(name.startswith("portico-db") for name in names)


def name_of_thread() -> str:
    return threading.current_thread().name


def test_asynchronous_tools_have_a_thread_each(did: list[str]) -> None:
    barrier = threading.Barrier(2, timeout=5)

    def query() -> int:
        barrier.wait()
        return threading.get_ident()

    async def tool() -> int:
        return await sync_to_async(query)()

    async def told() -> list[int]:
        return await asyncio.gather(*(db.with_orm_thread(tool()) for _ in range(2)))

    first, second = asyncio.run(told())
    assert first != second
    assert did == ["close all", "close all"]


def test_a_tool_that_asks_nothing_starts_no_thread(did: list[str]) -> None:
    async def tool() -> str:
        return "done"

    assert asyncio.run(db.with_orm_thread(tool())) == "done"
    assert did == []


def test_the_connections_of_a_failed_tool_are_closed_in_its_thread(
    did: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[Any] = []
    close_all = SimpleNamespace(close_all=lambda: threads.append(name_of_thread()))
    monkeypatch.setattr(db, "connections", close_all)

    async def tool() -> None:
        threads.append(await sync_to_async(name_of_thread)())
        raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(db.with_orm_thread(tool()))
    assert len(threads) == 2 and threads[0] == threads[1]
