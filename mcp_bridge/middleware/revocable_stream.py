"""RevocableStream: end an open stream when the token expires or access is revoked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup
from starlette.types import ASGIApp, Receive, Scope
from starlette.types import Message as Event

from mcp_bridge.cache.recheck import Recheck, RecheckedMixin
from mcp_bridge.http.shutdown import shutting_down
from mcp_bridge.metrics.prometheus import is_stream
from mcp_bridge.middleware.recorded_response import RECHECK_EVERY, RecordedStream

OnRecheck = Callable[[], Awaitable[None]]


class RevocableStream(RecheckedMixin):
    """Pure ASGI: runs `app` and ends it when its message is no longer allowed.

    `end` has the reason. If nothing was sent, the caller sends the refusal. While the
    stream is open, `on_recheck` runs after each check.
    """

    def __init__(
        self, app: ASGIApp, recheck: Recheck, on_recheck: OnRecheck | None = None
    ) -> None:
        self.app, self.recheck, self.on_recheck = app, recheck, on_recheck
        self.streaming = False
        self.end = None

    async def __call__(
        self, scope: Scope, receive: Receive, send: RecordedStream
    ) -> None:
        """Serve; recheck at intervals, and before delayed content is sent."""
        async with anyio.create_task_group() as tasks:
            # A timer, not a task: most answers end before it fires.
            loop = asyncio.get_running_loop()
            later = loop.call_later(RECHECK_EVERY, tasks.start_soon, self.watch, tasks)

            async def checked(event: Event) -> None:
                if event["type"] == "http.response.start":
                    self.streaming = is_stream(event)
                elif (
                    event.get("body")
                    and self.recheck.due
                    and not await self.still_allowed()
                ):
                    tasks.cancel_scope.cancel()
                if self.end is not None:
                    return
                await send(event)
                if event["type"] == "http.response.body":
                    self.streaming = self.streaming and event.get("more_body", False)

            try:
                await self.app(scope, receive, checked)
            finally:
                later.cancel()
            tasks.cancel_scope.cancel()
        if self.streaming and (self.end is None or send.begun):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def watch(self, tasks: TaskGroup) -> None:
        """Recheck until access ends, or the server stops during a stream."""
        while await self.still_allowed() and not (self.streaming and shutting_down()):
            if self.streaming and self.on_recheck is not None:
                await self.on_recheck()
            await anyio.sleep(RECHECK_EVERY)
        tasks.cancel_scope.cancel()
