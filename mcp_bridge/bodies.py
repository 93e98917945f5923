"""Bodies: not too large for the path, and here in time (slow clients).

Django spools a body of any size to disk before its view is called, and waits for it
for ever; both end here. RFC 9110 15.5.9 (408), 15.5.14 (413).
"""

from __future__ import annotations

import anyio
from django.conf import settings
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_bridge.answers import Answer, plain, too_slow
from mcp_bridge.edge import TooLarge, TooSlow, header


class Bounded:
    """Pure ASGI: 413 for what is larger than `largest`, 408 for what is too slow."""

    def __init__(self, app: ASGIApp, largest: int) -> None:
        self.app, self.largest = app, largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, until the body breaks a rule; a head sent already stays sent."""
        declared = header(scope, b"content-length") or "0"
        if declared.isdigit() and int(declared) > self.largest:
            await too_large(self.largest).send(send)
            return
        body, sender = Body(receive, self.largest), Sender(send)
        try:
            await self.app(scope, body, sender)
        except (TooLarge, TooSlow) as problem:
            if not sender.begun:
                await refusal(problem, self.largest).send(send)


class Body:
    """A `receive` that counts bytes and time until the body is complete."""

    def __init__(self, receive: Receive, largest: int) -> None:
        self.receive, self.left = receive, largest
        self.deadline = anyio.current_time() + settings.BODY_TIMEOUT
        self.complete = False

    async def __call__(self) -> Message:
        """The next event. Raises TooLarge, TooSlow."""
        if self.complete:
            return await self.receive()
        with anyio.move_on_at(self.deadline) as waiting:
            event = await self.receive()
        if waiting.cancelled_caught:
            raise TooSlow
        self.left -= len(event.get("body", b""))
        if self.left < 0:
            raise TooLarge
        self.complete = not event.get("more_body", False)
        return event


class Sender:
    """A `send` that knows whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self.send, self.begun = send, False

    async def __call__(self, event: Message) -> None:
        """Pass it on."""
        self.begun = True
        await self.send(event)


def too_large(largest: int) -> Answer:
    """413 with the limit; the connection ends, for the rest of the body is unread."""
    text = f"The body is larger than {largest} bytes."
    return plain(413, "invalid_request", text, connection="close")


def refusal(problem: TooLarge | TooSlow, largest: int) -> Answer:
    """413 or 408."""
    if isinstance(problem, TooLarge):
        return too_large(largest)
    return too_slow()
