"""Responses that are sent only after their audit event is recorded."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import anyio
from django.db import Error as DatabaseError
from starlette.types import Message as Event
from starlette.types import Receive, Send

from mcp_bridge.access.context import Call
from mcp_bridge.audit.trail import AuditTrail
from mcp_bridge.cache.recheck import Recheck, RecheckedMixin
from mcp_bridge.http import responses

logger = logging.getLogger(__name__)

WATCH_AFTER = 0.4
"""Seconds after which a call is watched for a disconnect."""
RECHECK_EVERY = 0.5
"""Seconds between two checks that a slow call or a stream is still allowed."""
PING_EVERY = 15.0
"""Seconds of silence after which a slow answer becomes a stream, as in the SDK."""
STREAM_HEAD: Event = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"text/event-stream"),
        (b"cache-control", b"no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),
    ],
}


class RecordedSend:
    """Records the event of one message, once."""

    def __init__(self, send: Send, trail: AuditTrail, call: Call) -> None:
        self.send, self.trail, self.call = send, trail, call
        self.recorded = self.failed = False
        self.begun = False
        """Whether any part of the response was sent."""
        self.head: Event | None = None

    async def record(self) -> None:
        """Record the event; if that fails, send 503 instead of the answer."""
        self.recorded = True
        try:
            await self.trail.record_decision(self.call)
        except DatabaseError:
            logger.exception("The call could not be recorded")
            self.failed = True
            self.begun = True
            await responses.unavailable().send(self.send)

    async def close(self) -> None:
        """End an open stream; a response that has not begun needs nothing."""


class RecordedStream(RecordedSend):
    """A `send` for streams; it records before it sends the first byte.

    `hold_head` delays the head until the first content, so a call that ends with
    one event has its outcome recorded. If recording fails, the client gets 503.
    """

    def __init__(
        self, send: Send, trail: AuditTrail, call: Call, *, hold_head: bool
    ) -> None:
        super().__init__(send, trail, call)
        self.hold_head = hold_head
        self.lock = anyio.Lock()

    async def __call__(self, event: Event) -> None:
        """Forward `event`; the lock keeps a ping from overtaking the record."""
        async with self.lock:
            await self.forward(event)

    async def forward(self, event: Event) -> None:
        """Forward one event; the caller has the lock."""
        if event["type"] == "http.response.start" and self.hold_head:
            self.head = event
            return
        if not self.recorded:
            await self.record()
        if self.failed:
            return
        self.begun = True
        if self.head is not None:
            head, self.head = self.head, None
            await self.send(head)
        await self.send(event)


class RecordedResponse(RecheckedMixin, RecordedSend):
    """A `send` for a single response that can become a stream.

    A disconnect cancels the call, and so does a lost permission (`end` has the error).
    A slow answer becomes a stream with pings. None of this costs anything in the first
    0.4 seconds.
    """

    def __init__(
        self, send: Send, receive: Receive, trail: AuditTrail, recheck: Recheck
    ) -> None:
        super().__init__(send, trail, recheck.call)
        self.receive, self.recheck = receive, recheck
        # A server runs every request in a task.
        self.serving = cast("asyncio.Task[Any]", asyncio.current_task())
        self.left = self.streaming = self.finishing = False
        self.end = None
        self.watching: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        self.alarm = loop.call_later(WATCH_AFTER, self.start_watching)
        self.lock: asyncio.Lock | None = None

    async def __call__(self, event: Event) -> None:
        """Hold the head back; send it together with the body."""
        if event["type"] == "http.response.start":
            self.head = event
        elif self.lock is None:
            self.alarm.cancel()
            await self.finish(event)
        else:
            async with self.lock:
                self.finishing = True
                await self.finish(event)

    async def finish(self, event: Event) -> None:
        """Record, then send the whole answer if it is still allowed."""
        if self.recheck.due and not await self.still_allowed():
            return
        if not self.recorded:
            await self.record()
        # Check again: the commit of the record may have taken long.
        if self.failed or (self.recheck.due and not await self.still_allowed()):
            return
        if self.streaming:
            await self.send({**event, "body": sse_event(event["body"])})
        elif self.head is not None:
            self.begun = True
            await self.send(self.head)
            await self.send(event)

    def start_watching(self) -> None:
        """Start to watch the client and the permission."""
        self.lock = asyncio.Lock()
        self.watching = asyncio.get_running_loop().create_task(self.watch(self.lock))

    async def watch(self, lock: asyncio.Lock) -> None:
        """Recheck and ping until the client disconnects or access ends."""
        step = min(RECHECK_EVERY, PING_EVERY)
        silent = 0.0
        while not self.end:
            try:
                event = await asyncio.wait_for(self.receive(), step)
            except TimeoutError:
                silent += step
                async with lock:
                    await self.recheck_or_ping(ping=silent >= PING_EVERY)
                silent = 0.0 if silent >= PING_EVERY else silent
                continue
            if event["type"] == "http.disconnect":
                self.left = True
                self.interrupt()
                return

    async def recheck_or_ping(self, *, ping: bool) -> None:
        """Cancel the call if it is no longer allowed; otherwise send a due ping.

        An unavailable database cancels nothing: the check before the answer decides.
        """
        if self.finishing:
            return
        if not await self.still_allowed():
            if not isinstance(self.end, DatabaseError):
                self.interrupt()
                return
            self.end = None
        if ping:
            await self.ping()

    def interrupt(self) -> None:
        """Cancel the task of the call."""
        self.serving.cancel()

    async def ping(self) -> None:
        """Send an SSE comment; the first one opens the stream."""
        if not self.recorded:
            await self.record()
            self.streaming = not self.failed
            if self.streaming:
                self.begun = True
                await self.send(STREAM_HEAD)
        if self.streaming:
            body = {"type": "http.response.body", "more_body": True}
            await self.send({**body, "body": b": ping\r\n\r\n"})

    async def record_disconnect(self) -> None:
        """Record the call of a client that disconnected."""
        if not self.recorded:
            await self.record()

    async def close(self) -> None:
        """End the stream that pings have opened."""
        if self.streaming:
            body = {"type": "http.response.body", "body": b"", "more_body": False}
            await self.send(body)

    def stop(self) -> None:
        """Stop the timer and the watch."""
        self.alarm.cancel()
        if self.watching is not None:
            self.watching.cancel()


def sse_event(body: bytes) -> bytes:
    """A JSON body as an SSE event."""
    return b"event: message\r\ndata: " + body + b"\r\n\r\n"
