"""What is sent to the client only once the message is on record."""

from __future__ import annotations

import asyncio
import logging

import anyio
from django.db import Error as DatabaseError
from starlette.types import Message as Event
from starlette.types import Receive, Send

from mcp_bridge import answers
from mcp_bridge.audit import Trail
from mcp_bridge.current import Call

logger = logging.getLogger(__name__)

PATIENT = 1.0
"""Seconds after which it is watched whether the client is still there."""
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


class Recorded:
    """Writes the event of one message, once."""

    def __init__(self, send: Send, trail: Trail, call: Call) -> None:
        self.send, self.trail, self.call = send, trail, call
        self.recorded = self.failed = False
        self.head: Event | None = None

    async def record(self) -> None:
        """Write the event, or answer 503 in place of what was to come."""
        self.recorded = True
        try:
            await self.trail.decided(self.call)
        except DatabaseError:
            logger.exception("A call could not be recorded")
            self.failed = True
            await answers.unavailable().send(self.send)


class OnRecord(Recorded):
    """A `send` for streams, on record before the first byte leaves.

    The head of an answer is `held` until its first content, so that the record
    knows how the call ended where it ended in one piece. If the record cannot be
    written the client gets 503 and nothing of the answer.
    """

    def __init__(self, send: Send, trail: Trail, call: Call, *, held: bool) -> None:
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
        if self.head is not None:
            head, self.head = self.head, None
            await self.send(head)
        await self.send(event)


class OnePiece(Recorded):
    """A `send` for an answer in one piece, which nothing of a stream is lost in.

    A client that leaves ends the call, and a slow answer becomes a stream that is
    kept alive. Both cost nothing in the first second.
    """

    def __init__(self, send: Send, receive: Receive, trail: Trail, call: Call) -> None:
        super().__init__(send, trail, call)
        self.receive = receive
        self.serving = asyncio.current_task()
        self.left = self.streaming = False
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
                await self.finish(event)

    async def finish(self, event: Event) -> None:
        """Record, then send the whole answer."""
        if not self.recorded:
            await self.record()
        if self.failed:
            return
        if self.streaming:
            await self.send({**event, "body": framed(event["body"])})
        elif self.head is not None:
            await self.send(self.head)
            await self.send(event)

    def grow_impatient(self) -> None:
        """Watch the client from now on."""
        self.lock = asyncio.Lock()
        self.watching = asyncio.get_running_loop().create_task(self.watch())

    async def watch(self) -> None:
        """Until the client leaves: ping it now and then."""
        while True:
            try:
                event = await asyncio.wait_for(self.receive(), PING_EVERY)
            except TimeoutError:
                await self.ping()
                continue
            if event["type"] == "http.disconnect":
                self.left = True
                if self.serving is not None:
                    self.serving.cancel()
                return

    async def ping(self) -> None:
        """Say that the call goes on; the answer becomes an event of a stream."""
        if self.lock is None:
            return
        async with self.lock:
            if not self.recorded:
                await self.record()
                self.streaming = not self.failed
                if self.streaming:
                    await self.send(STREAM_HEAD)
            if self.streaming:
                body = {"type": "http.response.body", "more_body": True}
                await self.send({**body, "body": b": ping\r\n\r\n"})

    async def leave(self) -> None:
        """The client has left: the call is on record all the same."""
        if self.serving is not None:
            self.serving.uncancel()
        if not self.recorded:
            await self.record()

    def stop(self) -> None:
        """Nobody waits any more."""
        self.alarm.cancel()
        if self.watching is not None:
            self.watching.cancel()


def framed(body: bytes) -> bytes:
    """A JSON answer as an event of a stream."""
    return b"event: message\r\ndata: " + body + b"\r\n\r\n"
