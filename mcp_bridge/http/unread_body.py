"""Read the rest of a request's body before a response that did not need it.

Many clients read nothing before they have sent the whole body, and proxies pass bodies
on as they arrive. A response that leaves earlier, such as 401 or 413, may be lost.
config/server/unread_bodies.py reads what is still left after these limits.
"""

from __future__ import annotations

import anyio
from starlette.types import Message as Event
from starlette.types import Receive, Scope, Send

from mcp_bridge.http.headers import header_pairs

MOST_BYTES = 16 * 1024 * 1024
MOST_SECONDS = 10.0
IDLE_SECONDS = 0.5
"""How long to wait for the next part of a body that nobody needs."""


class UnreadBody:
    """`receive` and `send` of a request that announces a body."""

    __slots__ = ("complete", "invited", "raw_receive", "raw_send", "waiting")

    def __init__(self, receive: Receive, send: Send, expects: bool) -> None:
        self.raw_receive, self.raw_send = receive, send
        self.complete, self.waiting = False, 0
        self.invited = not expects
        """Whether the client sends the body, or still waits for `100 Continue`."""

    async def receive(self) -> Event:
        self.invited = True
        self.waiting += 1
        try:
            event = await self.raw_receive()
        finally:
            self.waiting -= 1
        self.complete = not event.get("more_body", False)
        return event

    async def send(self, event: Event) -> None:
        """Send; before the head of a response, discard what is left of the body."""
        if event["type"] == "http.response.start" and not self.complete:
            if self.invited and not self.waiting:
                await self.discard()
        await self.raw_send(event)

    async def discard(self) -> None:
        """Read while more arrives, within the limits of this module."""
        left, end = MOST_BYTES, anyio.current_time() + MOST_SECONDS
        while left > 0 and not self.complete and anyio.current_time() < end:
            event: Event | None = None
            with anyio.move_on_at(min(end, anyio.current_time() + IDLE_SECONDS)):
                event = await self.receive()
            if event is None:
                return
            left -= len(event.get("body", b""))


def discarding_unread(
    scope: Scope, receive: Receive, send: Send
) -> tuple[Receive, Send]:
    """`receive` and `send` that read an announced body before the response."""
    headers = header_pairs(scope).first
    length = headers.get(b"content-length", b"").strip(b"0")
    if not length and b"transfer-encoding" not in headers:
        return receive, send
    body = UnreadBody(receive, send, b"expect" in headers)
    return body.receive, body.send
