"""What is sent to the client only once the message is on record."""

from __future__ import annotations

import asyncio
import logging

import anyio
from django.db import Error as DatabaseError
from starlette.types import Message as Event
from starlette.types import Receive, Send

from mcp_bridge.access.context import Call
from mcp_bridge.audit.trail import AuditTrail
from mcp_bridge.cache.recheck import Recheck
from mcp_bridge.http import responses

logger = logging.getLogger(__name__)

PATIENT = 1.0
"""Seconds after which it is watched whether the client is still there."""
LOOK_EVERY = 0.5
"""Seconds between two looks whether a slow call or a stream is still allowed."""
PING_EVERY = 15.0
"""Seconds of silence after which a slow answer becomes a stream, as the SDK's do."""
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
    """Writes the event of one message, once."""

    def __init__(self, send: Send, trail: AuditTrail, call: Call) -> None:
        self.send, self.trail, self.call = send, trail, call
        self.recorded = self.failed = False
        self.begun = False
        """Whether anything of the answer was sent."""
        self.head: Event | None = None

    async def record(self) -> None:
        """Write the event, or answer 503 in place of what was to come."""
        self.recorded = True
        try:
            await self.trail.decided(self.call)
        except DatabaseError:
            logger.exception("A call could not be recorded")
            self.failed = True
            self.begun = True
            await responses.unavailable().send(self.send)

    async def close(self) -> None:
        """End the stream of an answer that does not go on."""


class RecordedStream(RecordedSend):
    """A `send` for streams, on record before the first byte leaves.

    The head of an answer is `held` until its first content, so that the record
    knows how the call ended where it ended in one piece. If the record cannot be
    written the client gets 503 and nothing of the answer.
    """

    def __init__(
        self, send: Send, trail: AuditTrail, call: Call, *, held: bool
    ) -> None:
        super().__init__(send, trail, call)
        self.held = held
        self.lock = anyio.Lock()

    async def __call__(self, event: Event) -> None:
        """Pass `event` on, in its time; a ping must not overtake the record."""
        async with self.lock:
            await self.forward(event)

    async def forward(self, event: Event) -> None:
        """As above, one at a time."""
        if event["type"] == "http.response.start" and self.held:
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


class RecordedResponse(RecordedSend):
    """A `send` for an answer in one piece, which nothing of a stream is lost in.

    A client that leaves ends the call, and so does a message that is not allowed any
    more (`end`: why); a slow answer becomes a stream that is kept alive. All of it
    costs nothing in the first second.
    """

    def __init__(
        self, send: Send, receive: Receive, trail: AuditTrail, recheck: Recheck
    ) -> None:
        super().__init__(send, trail, recheck.call)
        self.receive, self.recheck = receive, recheck
        self.serving = asyncio.current_task()
        self.left = self.streaming = self.finishing = False
        self.end: Exception | None = None
        self.watching: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        self.alarm = loop.call_later(PATIENT, self.grow_impatient)
        self.lock: asyncio.Lock | None = None

    async def __call__(self, event: Event) -> None:
        """Hold the head back; with the body everything leaves."""
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
        """Record, then send the whole answer, where it may still be given."""
        if self.recheck.due and not await self.holds():
            return
        if not self.recorded:
            await self.record()
        # Again: the commit of the record may have taken long.
        if self.failed or (self.recheck.due and not await self.holds()):
            return
        if self.streaming:
            await self.send({**event, "body": framed(event["body"])})
        elif self.head is not None:
            self.begun = True
            await self.send(self.head)
            await self.send(event)

    async def holds(self) -> bool:
        """Whether the message is still allowed."""
        problem = await self.recheck.problem()
        self.end = self.end or problem
        return self.end is None

    def grow_impatient(self) -> None:
        """Watch the client, and the right to the answer, from now on."""
        self.lock = asyncio.Lock()
        self.watching = asyncio.get_running_loop().create_task(self.watch(self.lock))

    async def watch(self, lock: asyncio.Lock) -> None:
        """Until the client leaves or the right ends: ping the client now and then."""
        step = min(LOOK_EVERY, PING_EVERY)
        silent = 0.0
        while not self.end:
            try:
                event = await asyncio.wait_for(self.receive(), step)
            except TimeoutError:
                silent += step
                async with lock:
                    await self.look(ping=silent >= PING_EVERY)
                silent = 0.0 if silent >= PING_EVERY else silent
                continue
            if event["type"] == "http.disconnect":
                self.left = True
                self.interrupt()
                return

    async def look(self, *, ping: bool) -> None:
        """End the call where it is not allowed any more; `ping`: else say it goes on.

        A database that is away for a moment ends nothing: the last look decides.
        """
        if self.finishing:
            return
        if not await self.holds():
            if not isinstance(self.end, DatabaseError):
                self.interrupt()
                return
            self.end = None
        if ping:
            await self.ping()

    def interrupt(self) -> None:
        """Cancel the call."""
        if self.serving is not None:
            self.serving.cancel()

    async def ping(self) -> None:
        """Say that the call goes on; the answer becomes an event of a stream."""
        if not self.recorded:
            await self.record()
            self.streaming = not self.failed
            if self.streaming:
                self.begun = True
                await self.send(STREAM_HEAD)
        if self.streaming:
            body = {"type": "http.response.body", "more_body": True}
            await self.send({**body, "body": b": ping\r\n\r\n"})

    async def leave(self) -> None:
        """The client has left: the call is on record all the same."""
        if not self.recorded:
            await self.record()

    async def close(self) -> None:
        """End the stream that pings have opened."""
        if self.streaming:
            body = {"type": "http.response.body", "body": b"", "more_body": False}
            await self.send(body)

    def stop(self) -> None:
        """Nobody waits any more."""
        self.alarm.cancel()
        if self.watching is not None:
            self.watching.cancel()


def framed(body: bytes) -> bytes:
    """A JSON answer as an event of a stream."""
    return b"event: message\r\ndata: " + body + b"\r\n\r\n"
