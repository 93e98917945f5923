"""RevocableStream: end an open stream when the token expires or access is revoked."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable

import anyio
from django.db import Error as DatabaseError
from starlette.types import ASGIApp, Receive, Scope
from starlette.types import Message as Event

from mcp_bridge.cache.decision_cache import Mark, change_mark
from mcp_bridge.cache.recheck import Recheck, RecheckedMixin
from mcp_bridge.http.shared_watch import SharedWatch
from mcp_bridge.http.shutdown import shutting_down
from mcp_bridge.metrics.prometheus import is_stream
from mcp_bridge.middleware.recorded_response import RECHECK_EVERY, RecordedStream

logger = logging.getLogger(__name__)

AT_ONCE = 20
"""Streams that read their rows at the same time, after a change."""
OnRecheck = Callable[[], Awaitable[None]]


class RevocableStream(RecheckedMixin):
    """Pure ASGI: runs `app` and ends it when its message is no longer allowed.

    `end` has the reason. If nothing was sent, the caller sends the refusal. While the
    stream is open, `on_recheck` runs after each check that found a change.
    """

    def __init__(
        self, app: ASGIApp, recheck: Recheck, on_recheck: OnRecheck | None = None
    ) -> None:
        self.app, self.recheck, self.on_recheck = app, recheck, on_recheck
        self.streaming = False
        self.end = None
        self.mark: Mark | None = None
        self.context = contextvars.copy_context()

    async def __call__(
        self, scope: Scope, receive: Receive, send: RecordedStream
    ) -> None:
        """Serve; recheck at intervals, and before delayed content is sent."""
        with anyio.CancelScope() as self.running:

            async def checked(event: Event) -> None:
                if event["type"] == "http.response.start":
                    self.streaming = is_stream(event)
                elif (
                    has_content(event)
                    and self.recheck.due
                    and not await self.still_allowed()
                ):
                    self.running.cancel()
                if self.end is not None:
                    return
                await send(event)
                if event["type"] == "http.response.body":
                    self.streaming = self.streaming and event.get("more_body", False)

            OPEN_STREAMS.add(self)
            try:
                await self.app(scope, receive, checked)
            finally:
                OPEN_STREAMS.remove(self)
        if self.streaming and (self.end is None or send.begun):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def is_due(self, mark: Mark | None) -> bool:
        """Whether the stream may have to end, or has changes to tell."""
        stopping = self.streaming and shutting_down()
        return stopping or not self.recheck.unchanged_since(self.mark, mark)

    async def look(self, mark: Mark | None) -> None:
        """End the stream if access ended, or if the server stops.

        `mark` is of a check for changes just before; None if nothing is cached.
        """
        if self.streaming and shutting_down():
            self.running.cancel()
        elif not await self.still_allowed(looked=mark is not None):
            self.running.cancel()
        else:
            self.mark = mark
            if self.streaming and self.on_recheck is not None:
                await self.on_recheck()

    def fail(self, error: BaseException) -> None:
        """End the stream because it could not be checked."""
        if not isinstance(error, DatabaseError):
            logger.error("A stream could not be checked", exc_info=error)
        self.end = self.end or (error if isinstance(error, Exception) else None)
        self.running.cancel()


def has_content(event: Event) -> bool:
    """Whether a part of a stream says more than that the stream is open."""
    body: bytes = event.get("body", b"")
    if not body.startswith(b":"):
        return bool(body)
    return any(line and not line.startswith(b":") for line in body.splitlines())


class OpenStreams(SharedWatch[RevocableStream]):
    """All streams of this process; they share one check for changes per interval."""

    @property
    def interval(self) -> float:
        return RECHECK_EVERY

    async def look(self) -> None:
        """Check for changes once, then each stream; all end without a database."""
        try:
            mark = await change_mark()
        except Exception as error:
            for stream in list(self.members):
                stream.fail(error)
            return
        due = [stream for stream in self.members if stream.is_due(mark)]
        for start in range(0, len(due), AT_ONCE):
            some = [one for one in due[start : start + AT_ONCE] if one in self.members]
            looks = [
                asyncio.create_task(one.look(mark), context=one.context) for one in some
            ]
            found = await asyncio.gather(*looks, return_exceptions=True)
            for stream, problem in zip(some, found, strict=True):
                if problem is not None:
                    stream.fail(problem)


OPEN_STREAMS = OpenStreams()
