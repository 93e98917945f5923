"""SharedWatch: one task of a process looks after everything that is open."""

from __future__ import annotations

import asyncio
import contextvars
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedWatch(ABC, Generic[T]):
    """Members in the order of their start, and the task that looks after them."""

    def __init__(self) -> None:
        self.members: dict[T, None] = {}
        self.watching: asyncio.Task[None] | None = None

    @property
    @abstractmethod
    def interval(self) -> float:
        """Seconds between two looks."""

    @abstractmethod
    async def look(self) -> None:
        """Look after all members. Whatever it raises ends the watch."""

    def add(self, member: T) -> None:
        """Watch the member. The watch ends when none is left."""
        self.members[member] = None
        if self.watching is None or self.watching.done():
            # Not in the context of this member's message: others share the task.
            empty = contextvars.Context()
            self.watching = asyncio.create_task(self.watch(), context=empty)

    def remove(self, member: T) -> None:
        self.members.pop(member, None)

    async def watch(self) -> None:
        """Look at intervals while there are members."""
        while self.members:
            await asyncio.sleep(self.interval)
            await self.look()
