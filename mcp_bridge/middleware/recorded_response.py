"""Responses that are sent only after their audit event is recorded."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, cast

from django.db import Error as DatabaseError
from starlette.types import Message as Event
from starlette.types import Receive, Send

from mcp_bridge.access.context import Call
from mcp_bridge.audit.trail import AuditTrail
from mcp_bridge.cache.recheck import Recheck, RecheckedMixin
from mcp_bridge.http import responses
from mcp_bridge.http.event_stream import (
    PING,
    PING_EVERY,
    send_part,
    sse_event,
    stream_head,
)
from mcp_bridge.sessions.streams import ResumableEvents

logger = logging.getLogger(__name__)

WATCH_AFTER = 0.4
"""Seconds after which a call is watched for a disconnect."""
RECHECK_EVERY = 0.5
"""Seconds between two checks that a slow call or a stream is still allowed."""
RESUMABLE_AFTER = 1.0
"""Seconds after which a slow answer becomes a stream that the client can resume."""


class RecordedSend:
    """Records the event of one message, once."""

    recorded = failed = False
    begun = False
    """Whether any part of the response was sent."""
    head: Event | None = None

    def __init__(self, send: Send, trail: AuditTrail, call: Call) -> None:
        self.send, self.trail, self.call = send, trail, call

    async def record(self) -> None:
        """Record the event; if that fails, send 503 instead of the answer."""
        self.recorded = True
        try:
            await self.trail.record_decision(self.call)
        except DatabaseError:
            logger.exception("The call could not be recorded")
            self.failed = True
            if not self.begun:
                self.begun = True
                await responses.unavailable().send(self.send)

    async def close(self) -> None:
        """End an open stream; a response that has not begun needs nothing."""


class RecordedStream(RecordedSend):
    """A `send` for streams; it records before it sends the answer.

    `hold_head` delays the head until the first content. A call is recorded before its
    result, so with its outcome; progress and questions may come first. Streams without
    a result are recorded before their first byte. If recording fails, the client gets
    503, or an open stream ends.
    """

    def __init__(
        self, send: Send, trail: AuditTrail, call: Call, *, hold_head: bool
    ) -> None:
        super().__init__(send, trail, call)
        self.hold_head = hold_head
        self.has_result = hold_head and call.message.target is not None
        self.streaming = False
        self.lock = asyncio.Lock()

    async def __call__(self, event: Event) -> None:
        """Forward `event`; the lock keeps a ping from overtaking the record."""
        async with self.lock:
            await self.forward(event)

    async def forward(self, event: Event) -> None:
        """Forward one event; the caller has the lock."""
        if event["type"] == "http.response.start" and self.hold_head:
            self.head = event
            return
        if not self.recorded and not (self.has_result and comes_before(event)):
            await self.record()
            if self.failed and self.streaming:
                await self.send({"type": "http.response.body", "body": b""})
        if self.failed:
            return
        self.begun = True
        if self.head is not None:
            head, self.head = self.head, None
            await self.send(head)
            self.streaming = True
        await self.send(event)


class RecordedResponse(RecheckedMixin, RecordedSend):
    """A `send` for a single response that can become a stream.

    A disconnect cancels the call, and so does a lost permission (`end` has the error).
    A slow answer becomes a stream with pings, and so does one before which something
    is pushed. None of this costs anything in the first 0.4 seconds.
    """

    left = streaming = finishing = interrupted = False
    outlives_client = False
    """Whether the call continues after a disconnect."""
    session_id = ""
    events: ResumableEvents | None = None
    """Of a call whose client can resume the stream."""
    detached = False
    """Whether the tool has ended the response; its client resumes it."""
    instead: tuple[int, bytes] | None = None
    """Status and body of the answer to a call that was cancelled."""
    end: Exception | None = None
    watching: asyncio.Task[None] | None = None
    lock: asyncio.Lock | None = None

    def __init__(
        self, send: Send, receive: Receive, trail: AuditTrail, recheck: Recheck
    ) -> None:
        super().__init__(send, trail, recheck.call)
        self.receive, self.recheck = receive, recheck
        # A server runs every request in a task.
        self.serving = cast("asyncio.Task[Any]", asyncio.current_task())
        loop = asyncio.get_running_loop()
        self.alarm = loop.call_later(WATCH_AFTER, self.start_watching)

    async def __call__(self, event: Event) -> None:
        """Hold the head back; send it together with the body."""
        if event["type"] == "http.response.start":
            self.head = event
        elif self.lock is None:
            self.alarm.cancel()
            self.finishing = True
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
        if self.failed:
            await self.close()
            return
        # Check again: the commit of the record may have taken long.
        if self.recheck.due and not await self.still_allowed():
            return
        if self.streaming:
            body = await self.sse(event["body"])
            await self.send_part(body, more=False)
            self.streaming = False
        elif self.head is not None:
            self.begun = True
            await self.send(self.head)
            await self.send(event)

    async def push(self, body: bytes) -> None:
        """Send a message before the answer, which becomes a stream."""
        if self.lock is None:
            self.alarm.cancel()
            self.start_watching()
        if self.lock is None or self.finishing:
            return
        async with self.lock:
            if self.recheck.due and not await self.still_allowed():
                self.interrupt()
                return
            await self.open_stream()
            if self.streaming:
                await self.send_part(await self.sse(body))

    async def sse(self, body: bytes) -> bytes:
        """The message as an event, which is kept if the client can resume."""
        return sse_event(body) if self.events is None else await self.events.event(body)

    async def send_part(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the stream, unless nobody reads it."""
        if not self.left and not self.detached:
            await send_part(self.send, body, more=more)

    async def detach(self) -> None:
        """End the response while its call continues; its client can resume it."""
        if self.lock is None:
            self.start_watching()
        if self.lock is None or self.events is None or self.finishing:
            return
        async with self.lock:
            await self.open_stream()
            await self.send_part(b"", more=False)
            self.detached = True

    def start_watching(self) -> None:
        """Start to watch the client and the permission."""
        self.lock = asyncio.Lock()
        self.watching = asyncio.get_running_loop().create_task(self.watch(self.lock))

    async def watch(self, lock: asyncio.Lock) -> None:
        """Recheck and ping until the client disconnects or access ends."""
        step = min(RECHECK_EVERY, PING_EVERY)
        silent, lasted = 0.0, WATCH_AFTER
        while not self.end:
            if not self.left and await self.disconnected(step):
                self.left = True
                if not self.outlives_client and not self.resumable:
                    self.interrupt()
                    return
            elif self.left:
                await asyncio.sleep(step)
            silent, lasted = silent + step, lasted + step
            due = silent >= PING_EVERY
            if self.events is not None and not self.begun:
                due = due or lasted >= RESUMABLE_AFTER
            if self.events is not None and self.resumable:
                await self.events.mark_alive()
            async with lock:
                await self.recheck_or_ping(ping=due)
            silent = 0.0 if due else silent

    @property
    def resumable(self) -> bool:
        """Whether the client can get the answer on another connection."""
        return self.events is not None and self.begun

    async def disconnected(self, seconds: float) -> bool:
        """Whether the client disconnects in this time."""
        end = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(end):
                while (await self.receive())["type"] != "http.disconnect":
                    continue
        except TimeoutError:
            return False
        return True

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
        if ping and not self.left:
            await self.ping()

    def cancel(self, status: int, body: bytes) -> None:
        """Cancel the call and answer this, unless the answer is being sent."""
        if not self.finishing and not self.interrupted:
            self.instead = status, body
            self.interrupt()

    def interrupt(self) -> None:
        """Cancel the task of the call."""
        if not self.interrupted:
            self.interrupted = True
            self.serving.cancel()

    async def settle(self) -> None:
        """Answer a call that was cancelled; record one whose client has gone."""
        if self.instead is not None and not self.left:
            status, body = self.instead
            headers = [(b"content-type", b"application/json")]
            headers.append((b"content-length", str(len(body)).encode()))
            head = {"type": "http.response.start", "status": status, "headers": headers}
            await self(head)
            await self({"type": "http.response.body", "body": body})
        elif not self.recorded:
            await self.record()

    async def ping(self) -> None:
        """Send an SSE comment; the first one opens the stream."""
        await self.open_stream()
        if self.streaming:
            await self.send_part(PING)

    async def open_stream(self) -> None:
        """Send the head of a stream, once; the record waits for the answer."""
        if self.begun or self.left:
            return
        self.begun = self.streaming = True
        named = [(b"mcp-session-id", self.session_id.encode())]
        await self.send(stream_head(*(named if self.session_id else [])))
        if self.events is not None:
            await self.send_part(await self.events.first())

    async def close(self) -> None:
        """End the stream that pings or messages have opened."""
        if self.streaming:
            self.streaming = False
            await self.send_part(b"", more=False)

    def stop(self) -> None:
        """Stop the timer and the watch."""
        self.alarm.cancel()
        if self.watching is not None:
            self.watching.cancel()


def comes_before(event: Event) -> bool:
    """Whether a part of a stream is no answer: a notification, a comment, its end.

    A stream ends without an answer when its client has gone.
    """
    body = event.get("body", b"")
    if event["type"] != "http.response.body":
        return False
    if not event.get("more_body", False):
        return not body
    if b'"result":' not in body and b'"error":' not in body:
        return True
    # A request's parameters, or the text of a log, may have such a key, too.
    data = body.partition(b"data: ")[2].splitlines()
    try:
        return bool(data) and "method" in json.loads(data[0])
    except ValueError:
        return False
