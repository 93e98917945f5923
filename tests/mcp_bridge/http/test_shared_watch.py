"""One task looks after all members, while there are any."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from mcp_bridge.http.shared_watch import SharedWatch
from tests.support.asgi import run
from tests.support.mcp_in_process import until

pytestmark = pytest.mark.once


class Looks(SharedWatch[str]):
    """Notes the members at each look."""

    interval = 0.001

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[str]] = []

    async def look(self) -> None:
        self.seen.append(list(self.members))


def test_members_share_a_task_that_ends_with_the_last() -> None:
    async def story() -> None:
        looks = Looks()
        looks.add("a")
        task = looks.watching
        assert task is not None
        looks.add("b")
        assert looks.watching is task
        await until(lambda: ["a", "b"] in looks.seen)
        looks.remove("a")
        looks.remove("a")
        await until(lambda: ["b"] in looks.seen)
        looks.remove("b")
        await asyncio.wait_for(task, 5)
        looks.add("c")
        assert looks.watching is not task
        await until(lambda: ["c"] in looks.seen)
        looks.remove("c")
        assert looks.watching is not None
        await asyncio.wait_for(looks.watching, 5)

    run(story())


def test_a_look_that_failed_does_not_end_later_watches() -> None:
    async def story() -> None:
        looks = Looks()
        looks.add("a")
        first = looks.watching
        assert first is not None
        looks.seen = None  # type: ignore[assignment]
        with pytest.raises(AttributeError):
            await asyncio.wait_for(first, 5)
        looks.seen = []
        looks.add("b")
        await until(lambda: ["a", "b"] in looks.seen)
        looks.members.clear()

    run(story())


def test_members_lend_the_task_no_context() -> None:
    """Otherwise every later look would act for the first caller."""
    whose: ContextVar[str] = ContextVar("whose", default="nobody")

    class Whose(Looks):
        async def look(self) -> None:
            self.seen.append([whose.get()])

    async def story() -> None:
        whose.set("mine")
        looks = Whose()
        looks.add("a")
        await until(lambda: looks.seen)
        looks.remove("a")
        assert looks.seen[0] == ["nobody"]

    run(story())
