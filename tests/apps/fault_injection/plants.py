"""Each function breaks a part of the decision cache while FAULT_FILE names it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from accounts.tokens.principal import Principal
from mcp_bridge.cache.decision_cache import DecisionCache
from mcp_bridge.cache.principal_cache import PrincipalCache

SLOWLY = 0.03
"""Seconds that a read is slowed down, so that commits fall into it.

Less than mcp_bridge.cache.recheck.FRESH_FOR: after more the message is decided again,
which hides the fault.
"""


def awake(name: str) -> bool:
    """Whether this fault is active."""
    return Path(os.environ["FAULT_FILE"]).read_text() == name


def plant() -> None:
    unverified()
    look_joined()
    load_joined()
    keyed()


def unverified() -> None:
    """`unverified`: the triggers are not checked."""
    sound = DecisionCache.verify

    async def verify(self: DecisionCache) -> None:
        if not awake("unverified"):
            await sound(self)

    DecisionCache.verify = verify  # type: ignore[method-assign]


def look_joined() -> None:
    """`look`: a request joins a read that began before it.

    `slow`: reads take as long, and requests do not join them.
    """
    sound = DecisionCache.check_for_changes
    flights: dict[int, asyncio.Task[None]] = {}

    async def slowly(self: DecisionCache) -> None:
        await sound(self)
        await asyncio.sleep(SLOWLY)

    async def look(self: DecisionCache) -> None:
        if awake("slow"):
            await asyncio.sleep(SLOWLY)
        if not awake("look"):
            await sound(self)
            return
        flight = flights.get(id(self))
        if flight is None or flight.done():
            flight = flights[id(self)] = asyncio.create_task(slowly(self))
        await asyncio.shield(flight)

    DecisionCache.check_for_changes = look  # type: ignore[method-assign]


def load_joined() -> None:
    """`load`: a request joins a load of rows that began before a change.

    Loaded rows are dropped at once, so that a load is always in progress.
    """
    sound = DecisionCache.single_flight

    async def single_flight(self: DecisionCache, key: bytes, work: Any) -> Any:
        async def slowly(load: Any) -> Any:
            found = await outcome(work(load))
            await asyncio.sleep(SLOWLY)
            self.principals.drop(key)
            return found()

        if not awake("load"):
            return await sound(self, key, work)
        running = self.loads.get(key)
        if running is None:
            return await sound(self, key, slowly)
        return await asyncio.shield(running[1])

    DecisionCache.single_flight = single_flight  # type: ignore[method-assign]


async def outcome(work: Any) -> Any:
    """A function that returns or raises the outcome of `work`."""
    try:
        found = await work
    except Exception as error:
        problem = error

        def fail() -> Any:
            raise problem

        return fail
    return lambda: found


def keyed() -> None:
    """`keyed`: one cache entry for every user."""
    sound_get, sound_put = PrincipalCache.get, PrincipalCache.put

    def get(self: PrincipalCache, key: bytes) -> Principal | None:
        return sound_get(self, b"" if awake("keyed") else key)

    def put(self: PrincipalCache, key: bytes, principal: Principal) -> None:
        sound_put(self, b"" if awake("keyed") else key, principal)

    PrincipalCache.get, PrincipalCache.put = get, put  # type: ignore[method-assign]
