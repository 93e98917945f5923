"""DatabaseTimeoutMiddleware: 503 if the database does not answer a Django request.

PostgreSQL's own timeouts end slow queries. A frozen or unreachable server sends nothing
at all, and a thread would wait for it without limit. A SQLite file that was replaced
is refused, too: this process still has the old one open.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from accounts.http.issuer_urls import PROBES
from mcp_bridge.cache.decision_cache import database_unavailable, known_replaced
from mcp_bridge.http.responses import unavailable

CHECK_AFTER = 6.0
"""Seconds without a response after which the database is checked.

A database that refuses connections gets its error page before that: the pool waits 5
seconds for a connection.
"""


class DatabaseTimeoutMiddleware:
    """Pure ASGI: sends 503 if the app is waiting for an unavailable database."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve; the waiting thread is not interrupted."""
        if known_replaced() and scope["path"] not in PROBES:
            # Pages would read and change the old file, which nothing else uses.
            await unavailable().send(send)
            return
        reply = GuardedSend(send)
        try:
            await self.app(scope, receive, reply)
        finally:
            reply.end()


class GuardedSend:
    """A `send` for the app's response, or for 503 if the database is unavailable."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.begun = self.replaced = False
        self.alarm = self.schedule_check()

    async def __call__(self, event: Message) -> None:
        """Forward the event; drop it after a 503."""
        self.begun = True
        if not self.replaced:
            await self.send(event)

    def end(self) -> None:
        """Stop checking: the app has returned or failed."""
        self.begun = True
        self.alarm.cancel()

    def schedule_check(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(CHECK_AFTER, self.start_check)

    def start_check(self) -> None:
        """Start the check; the attribute keeps the task, because the loop does not."""
        self.checking = asyncio.create_task(self.check_database())

    async def check_database(self) -> None:
        """Send 503 if the database is unavailable; else check again later."""
        unavailable_now = await database_unavailable()
        if self.begun:
            return
        if not unavailable_now:
            self.alarm = self.schedule_check()
            return
        self.replaced = True
        await unavailable().send(self.send)
