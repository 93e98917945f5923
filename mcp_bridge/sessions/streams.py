"""Streams of sessions: the client's GET stream, and responses that can be resumed.

MCP 2025-11-25 basic/transports, "Resumability and Redelivery". The events of a response
that has become a stream go to the log before they are sent. A client whose connection
broke sends GET with Last-Event-ID, to any worker, and gets those it has missed, and the
rest when it comes. Each is decided again before it is sent.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from django.db import Error as DatabaseError
from mcp_types import INTERNAL_ERROR
from starlette.types import Message as Event
from starlette.types import Receive, Scope, Send

from mcp_bridge.access.context import Call
from mcp_bridge.access.decision import decide
from mcp_bridge.access.messages import Message
from mcp_bridge.cache.recheck import Recheck
from mcp_bridge.http.event_stream import (
    PING,
    PING_EVERY,
    EventStream,
    client_left,
    forget_headers,
    send_part,
    sse_event,
    stream_head,
)
from mcp_bridge.sessions.message_log import KEPT_FOR, LogEntry
from mcp_bridge.sessions.registry import OpenSession, failure

logger = logging.getLogger(__name__)

RESUMABLE_SINCE = "2025-11-25"
"""The first protocol whose clients understand an event without data."""
RETRY = 1000
"""Milliseconds after which a client should connect again."""
LONGEST_CALL = 3600.0
"""Seconds after its first event in which a response can be resumed."""
LOOK_EVERY = 0.2
"""Seconds between two looks for the rest of a resumed response."""
EVENT_ID = re.compile(r"([0-9a-f]{16})-(\d{1,9})\Z")
ALIVE_EVERY = 5.0
"""Seconds between two marks that a call which can be resumed still runs."""
ALIVE_FOR = 15.0
"""Seconds after its last mark in which such a call counts as running."""
GONE_AFTER = 10.0
"""Seconds without a mark after which its process is gone: marks may be late."""
GONE = "The server process that ran the call has stopped; its outcome is unknown."
LOST = "The result could not be kept until you asked for it again."


class ResumableEvents:
    """The events of one response; they stay in the log while it can be resumed.

    Only of the use of a primitive, which can be decided again.
    """

    def __init__(self, session: OpenSession, call: Call) -> None:
        self.session, self.call = session, call
        self.stream, self.number = secrets.token_hex(8), 0
        self.marked_at = 0.0

    async def first(self) -> bytes:
        """The event without data by whose id the client can connect again."""
        message = self.call.message
        about = {"target": message.target, "content": message.content}
        await self.store(json.dumps(about).encode(), LONGEST_CALL)
        await self.mark_alive()
        head = f"id: {self.stream}-0\r\nretry: {RETRY}\r\n"
        return head.encode() + b"data: \r\n\r\n"

    async def mark_alive(self) -> None:
        """Tell other workers now and then that the call still runs."""
        log, now = self.session.registry.log, time.monotonic()
        if not log.shared or now - self.marked_at < ALIVE_EVERY:
            return
        self.marked_at = now
        name = alive_channel(self.session, self.stream)
        try:
            await log.append(name, 0, b"", ALIVE_FOR)
        except DatabaseError as error:
            logger.warning("A running call was not marked: %s", error)

    async def event(self, body: bytes) -> bytes:
        """The next event, for the client; it is in the log before it is sent."""
        self.number += 1
        if not await self.store(body) and is_answer(body):
            request_id = self.call.message.content["id"]
            await self.store(failure(request_id, INTERNAL_ERROR, LOST))
        return sse_event(body, f"{self.stream}-{self.number}")

    async def store(self, body: bytes, kept_for: float = KEPT_FOR) -> bool:
        """Whether the log has the event; without it the client cannot resume."""
        log, channel = self.session.registry.log, self.session.channel(self.stream)
        try:
            return await log.append(channel, self.number, body, kept_for)
        except DatabaseError as error:
            logger.warning("An event of a stream was not kept: %s", error)
            return False


def alive_channel(session: OpenSession, stream: str) -> str:
    """Where a worker marks that the call of a stream still runs."""
    return session.channel(f"{stream}/alive")


def is_answer(body: bytes) -> bool:
    """Whether it is a result or an error, after which nothing follows."""
    return "method" not in json.loads(body)


@asynccontextmanager
async def client_leaving(receive: Receive) -> AsyncIterator[asyncio.Task[None]]:
    """A task that ends when the client disconnects."""
    task = asyncio.create_task(client_left(receive))
    try:
        yield task
    finally:
        task.cancel()


def head_of_stream(session: OpenSession) -> Event:
    """The start of a stream of this session."""
    return stream_head((b"mcp-session-id", session.id.encode()))


async def serve_stream(
    scope: Scope, session: OpenSession, receive: Receive, send: Send
) -> None:
    """Serve the client's GET stream here; it replaces an older one in this worker."""
    if session.stream is not None:
        session.stream.close()
    session.stream = stream = EventStream()
    session.registry.set_busy(session)
    try:
        await session.registry.deliver([session])
        forget_headers(scope)
        await stream.serve(receive, send, head_of_stream(session))
        await send_part(send, b"", more=False)
    finally:
        if session.stream is stream:
            session.stream = None
        session.registry.set_busy(session)


class Resumption:
    """What a client that sends Last-Event-ID has missed of one response."""

    def __init__(
        self, session: OpenSession, stream: str, after: int, recheck: Recheck
    ) -> None:
        self.session, self.stream, self.after = session, stream, after
        self.recheck = recheck
        self.about: Mapping[str, Any] = {}
        self.seen_at = self.looked_at = time.monotonic()
        """When the call was known to run, and when that was asked."""

    async def is_known(self) -> bool:
        """Whether the log has more of the response, and the caller may have it."""
        entries = await self.read(-1)
        if not entries or entries[0].number != 0:
            return False
        if 0 < entries[-1].number <= self.after and is_answer(entries[-1].content):
            return False
        self.about = json.loads(entries[0].content)
        return await self.is_allowed()

    async def read(self, after: int) -> list[LogEntry]:
        """The events in the log after this one. Database errors propagate."""
        channel = self.session.channel(self.stream)
        return await self.session.registry.log.read([channel], after)

    async def runs(self) -> bool:
        """Whether a process still runs the call; the only process does."""
        log = self.session.registry.log
        name = alive_channel(self.session, self.stream)
        return not log.shared or bool(await log.read([name], -1))

    async def is_gone(self) -> bool:
        """Whether no process ran the call for a while, and it has no answer.

        Asks the log now and then.
        """
        now = time.monotonic()
        if now - self.looked_at < GONE_AFTER / 4:
            return False
        self.looked_at = now
        if await self.runs():
            self.seen_at = now
        late = now - self.seen_at > GONE_AFTER
        return late and not await self.read(self.after)

    async def send_gone(self, send: Send) -> None:
        """Answer a call that no process runs any more."""
        body = failure(self.about["content"]["id"], INTERNAL_ERROR, GONE)
        await send_part(send, sse_event(body))

    async def is_allowed(self) -> bool:
        """Decide the message of the response by the caller's current rights."""
        if self.recheck.due and await self.recheck.problem() is not None:
            return False
        call, content = self.recheck.call, self.about["content"]
        kind, name = self.about["target"]
        message = Message(str(content["method"]), (kind, name), content=content)
        return decide(call.principal, message, call.catalogue).allowed

    async def serve(self, receive: Receive, send: Send) -> None:
        """Send the missed events and the rest, until the answer was sent."""
        await send(head_of_stream(self.session))
        async with client_leaving(receive) as leaving:
            try:
                await self.send_rest(leaving, send)
            except DatabaseError as error:
                logger.warning("A response was not resumed: %s", error)
        await send_part(send, b"", more=False)

    async def send_rest(self, leaving: asyncio.Task[None], send: Send) -> None:
        """Send events until the answer, the client's end, or long silence."""
        heard = pinged = time.monotonic()
        while not leaving.done() and time.monotonic() - heard < KEPT_FOR:
            if not await self.is_allowed():
                return
            for entry in await self.read(self.after):
                if not await self.is_allowed():
                    return
                self.after, heard = entry.number, time.monotonic()
                event_id = f"{self.stream}-{entry.number}"
                await send_part(send, sse_event(entry.content, event_id))
                if is_answer(entry.content):
                    return
            if await self.is_gone():
                return await self.send_gone(send)
            if time.monotonic() - max(heard, pinged) > PING_EVERY:
                pinged = time.monotonic()
                await send_part(send, PING)
            await asyncio.wait({leaving}, timeout=LOOK_EVERY)


async def resumption(
    session: OpenSession, last_event_id: str, recheck: Recheck | None
) -> Resumption | None:
    """The response that an event id names; None if there is none for the caller."""
    found = EVENT_ID.match(last_event_id)
    if found is None or recheck is None:
        return None
    asked = Resumption(session, found[1], int(found[2]), recheck)
    return asked if await asked.is_known() else None
