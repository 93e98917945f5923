"""Requests to Django that get no answer because the database says nothing: 503.

PostgreSQL's own timeouts end what is slow. Frozen, or behind a cable that was pulled,
it says nothing at all, and a thread waits for it as long as that lasts.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_bridge.cache.decision_cache import database_away
from mcp_bridge.http.responses import unavailable

ASKED_AFTER = 6.0
"""Seconds without an answer after which the database is asked whether it is there.

A database that refuses is answered for before by the page itself, in its own words:
the pool waits for a connection for 5 seconds."""


class DatabaseTimeoutMiddleware:
    """Pure ASGI: gives 503 in place of an answer that cannot come."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve; the thread that waits is left to end by itself."""
        reply = GuardedSend(send)
        try:
            await self.app(scope, receive, reply)
        finally:
            reply.end()


class GuardedSend:
    """The way back: the app's answer, or 503 where the database is away first."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.begun = self.given_up = False
        self.alarm = self.later()

    async def __call__(self, event: Message) -> None:
        """Pass it on; too late, it is dropped."""
        self.begun = True
        if not self.given_up:
            await self.send(event)

    def end(self) -> None:
        """The app has returned or failed: nothing more is ours to say."""
        self.begun = True
        self.alarm.cancel()

    def later(self) -> asyncio.TimerHandle:
        """Ask after a while."""
        return asyncio.get_running_loop().call_later(ASKED_AFTER, self.ask)

    def ask(self) -> None:
        """Begin to ask; the task is kept, for the loop does not keep it."""
        self.asking = asyncio.create_task(self.look())

    async def look(self) -> None:
        """Give up where the database is away; wait on where it is there."""
        away = await database_away()
        if self.begun:
            return
        if not away:
            self.alarm = self.later()
            return
        self.given_up = True
        await unavailable().send(self.send)
