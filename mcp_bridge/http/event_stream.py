"""Server-sent events (SSE), and streams that stay open for them.

An idle stream costs what its request costs, and one task that waits for the client to
leave. What is pushed is sent by a task that ends with it, and all streams of a process
share the task that sends their pings.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from typing import cast

from starlette.types import Message as Event
from starlette.types import Receive, Scope, Send

from mcp_bridge.http.headers import HeaderPairs
from mcp_bridge.http.shared_watch import SharedWatch

PING_EVERY = 15.0
"""Seconds of silence after which a comment is sent."""
PING = b": ping\r\n\r\n"
MOST_WAITING = 1000
"""Events that wait for a client which does not read."""
STREAM_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


def sse_event(body: bytes, event_id: str = "") -> bytes:
    """A JSON body as an SSE event."""
    head = f"id: {event_id}\r\n".encode() if event_id else b""
    return head + b"event: message\r\ndata: " + body + b"\r\n\r\n"


def stream_head(*more: tuple[bytes, bytes]) -> Event:
    """The start of a stream, with further headers."""
    headers = [*STREAM_HEADERS, *more]
    return {"type": "http.response.start", "status": 200, "headers": headers}


async def send_part(send: Send, body: bytes, *, more: bool = True) -> None:
    """Send a part of a stream."""
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def client_left(receive: Receive) -> None:
    """Wait until the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        continue


class EventStream:
    """One open stream. Events that are pushed before it is served wait."""

    __slots__ = (
        "context",
        "ended",
        "problem",
        "send",
        "sending",
        "sent_at",
        "serving",
        "waiting",
        "woken",
    )

    def __init__(self) -> None:
        self.waiting: list[bytes] = []
        self.ended = self.woken = False
        """Whether it ends after what waits, and whether `serve` was told to."""
        self.problem: Exception | None = None
        self.send: Send | None = None
        self.sending: asyncio.Task[None] | None = None
        self.sent_at = 0.0

    def push(self, event: bytes) -> bool:
        """Send a whole event; False if too many wait, and it is lost."""
        if self.ended or len(self.waiting) >= MOST_WAITING:
            return False
        self.waiting.append(event)
        self.start_sending()
        return True

    def close(self) -> None:
        """End the stream after what was pushed."""
        self.ended = True
        self.start_sending()

    def start_sending(self) -> None:
        """Start the task that sends, unless it runs or nothing may be sent yet."""
        if self.send is None or self.sending is not None:
            return
        work = self.send_waiting(self.send)
        self.sending = asyncio.create_task(work, context=self.context)

    async def send_waiting(self, send: Send) -> None:
        """Send what waits, then end the stream if it has to."""
        try:
            while self.waiting:
                await send_part(send, self.waiting.pop(0))
                self.sent_at = time.monotonic()
        except Exception as error:
            self.problem = error
        self.sending = None
        if (self.ended or self.problem) and not self.woken:
            self.woken = True
            self.serving.cancel()

    async def serve(
        self, receive: Receive, send: Send, head: Event, first: bytes = b""
    ) -> bool:
        """Serve until it ends; False if the client has left before.

        The caller sends the last part. Raises what sending raised.
        """
        await send(head)
        if first:
            await send_part(send, first)
        self.begin(send)
        try:
            await client_left(receive)
        except asyncio.CancelledError:
            if not self.woken:
                raise
            self.serving.uncancel()
        finally:
            self.finish()
        if self.problem is not None:
            raise self.problem
        return self.woken

    def begin(self, send: Send) -> None:
        """Send what has waited, and pings from now on."""
        # A server runs every request in a task.
        self.serving = cast("asyncio.Task[object]", asyncio.current_task())
        self.context = contextvars.copy_context()
        self.send, self.sent_at = send, time.monotonic()
        SILENCE.add(self)
        if self.waiting or self.ended:
            self.start_sending()

    def finish(self) -> None:
        """Send nothing more."""
        SILENCE.remove(self)
        self.send = None
        if self.sending is not None:
            self.sending.cancel()


class Silence(SharedWatch[EventStream]):
    """Sends a ping on each stream of this process that was silent for long."""

    @property
    def interval(self) -> float:
        return min(1.0, PING_EVERY / 4)

    async def look(self) -> None:
        late = time.monotonic() - PING_EVERY
        for stream in self.members:
            if stream.sent_at <= late and stream.sending is None:
                stream.push(PING)


SILENCE = Silence()


def forget_headers(scope: Scope) -> None:
    """Free the request's headers, when its stream is open and nothing reads them."""
    pairs = scope["headers"]
    if isinstance(pairs, HeaderPairs):
        pairs.clear()
        pairs.first.clear()
