"""Request bodies: limits on size and on time (slow clients).

Django spools a body of any size to disk before it calls the view, and waits for it
without limit. RFC 9110 15.5.9 (408), 15.5.14 (413).
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from typing import TypeVar, cast

import anyio
from django.conf import settings
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from accounts.http.responses import SCOPE_KEY, RefusedBody
from mcp_bridge.http.headers import header
from mcp_bridge.http.responses import Response, body_timeout, json_error

LimitOf = Callable[[Scope], Awaitable[int]]
"""The largest body of a request, in bytes."""


class BodyLimitMiddleware:
    """Pure ASGI: 413 for a body over its limit, 408 for a slow one.

    A browser gets the page that Django makes of a RefusedBody.
    """

    def __init__(self, app: ASGIApp, limit: LimitOf) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve; a response that has begun is not replaced."""
        largest = await self.limit(scope)
        declared = header(scope, b"content-length") or "0"
        if declared.isdigit() and int(declared) > largest:
            await self.refuse(RefusedBody(413, largest), scope, send)
            return
        body, sender = LimitedReceive(receive, largest), TrackedSend(send)
        try:
            await self.app(scope, body, sender)
        except (BodyTooLarge, BodyTimeout) as problem:
            if not sender.begun:
                status = 413 if isinstance(problem, BodyTooLarge) else 408
                await self.refuse(RefusedBody(status, largest), scope, send)

    async def refuse(self, refused: RefusedBody, scope: Scope, send: Send) -> None:
        """A page for a browser, JSON for a program."""
        if "text/html" in (header(scope, b"accept") or ""):
            await self.app({**scope, SCOPE_KEY: refused}, empty_body(), send)
        else:
            await body_refused(refused).send(send)


def empty_body() -> Receive:
    """A `receive` that returns an empty body once, and then waits.

    Django listens for a disconnect while it answers, and fails at a second body. The
    client's own events are the rest of the refused body.
    """
    left: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if not left:
            await anyio.sleep_forever()
        return left.pop()

    return receive


class LimitedReceive:
    """A `receive` that limits bytes and time until the body is complete."""

    def __init__(self, receive: Receive, largest: int) -> None:
        self.receive, self.left = receive, largest
        self.deadline = anyio.current_time() + settings.BODY_TIMEOUT
        self.complete = False

    async def __call__(self) -> Message:
        """The next event. Raises BodyTooLarge, BodyTimeout."""
        if self.complete:
            return await self.receive()
        with anyio.move_on_at(self.deadline) as waiting:
            event = await self.receive()
        if waiting.cancelled_caught:
            raise BodyTimeout
        self.left -= len(event.get("body", b""))
        if self.left < 0:
            raise BodyTooLarge
        self.complete = not event.get("more_body", False)
        return event


class TrackedSend:
    """A `send` that records whether a response has begun."""

    def __init__(self, send: Send) -> None:
        self.send, self.begun = send, False

    async def __call__(self, event: Message) -> None:
        self.begun = True
        await self.send(event)


def body_too_large(largest: int) -> Response:
    """413 with the limit; it closes the connection, whose body is unread."""
    text = f"The body is larger than {largest} bytes."
    return json_error(413, "invalid_request", text, connection="close")


def body_refused(refused: RefusedBody) -> Response:
    if refused.status == 413:
        return body_too_large(refused.largest)
    return body_timeout()


T = TypeVar("T")


R = TypeVar("R")


class BodyTooLarge(Exception):
    """The body is larger than MAX_BODY_SIZE."""


class BodyTimeout(Exception):
    """The body did not arrive within BODY_TIMEOUT."""


class Disconnected(Exception):
    """The client disconnected before the body was complete."""


@types.coroutine
def resume(work: Coroutine[T, None, R], waits_for: T) -> Generator[T, None, R]:
    """Resume a coroutine that was advanced once and yielded `waits_for`."""
    while True:
        try:
            yield waits_for
        except BaseException as error:  # `work` must see a cancellation
            step = partial(work.throw, error)
        else:
            step = partial(work.send, None)
        try:
            waits_for = step()
        except StopIteration as complete:
            return cast(R, complete.value)


class IncomingBody:
    """The body of one request, read in one or more steps."""

    __slots__ = ("chunks", "complete", "on_chunk", "receive", "size")

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.chunks: list[bytes] = []
        self.size, self.complete = 0, False
        self.on_chunk: Callable[[int], None] | None = None
        """Called with the bytes of each chunk; may raise."""

    async def arrives(self, within: float) -> bool:
        """Whether the body is complete within seconds.

        Raises BodyTooLarge, Disconnected. Most bodies are buffered already, so the
        timeout is created only for a body that must be awaited.
        """
        reading = self.read()
        try:
            waits_for = reading.send(None)
        except StopIteration:
            return True
        try:
            async with asyncio.timeout(within):
                await resume(reading, waits_for)
        except TimeoutError:
            return False
        return True

    async def read(self) -> None:
        """Read until the body is complete, without a time limit."""
        while not self.complete:
            event = await self.receive()
            if event["type"] == "http.disconnect":
                raise Disconnected
            chunk = event.get("body", b"")
            self.size += len(chunk)
            if self.size > settings.MAX_BODY_SIZE:
                raise BodyTooLarge
            if self.on_chunk is not None:
                self.on_chunk(len(chunk))
            self.chunks.append(chunk)
            self.complete = not event.get("more_body", False)

    def content(self) -> bytes:
        if len(self.chunks) > 1:
            self.chunks = [b"".join(self.chunks)]
        return self.chunks[0]

    def replay(self) -> Receive:
        """A `receive` that returns the body again, then the following events."""
        pending = [self.content()]

        async def replayed() -> Message:
            if pending:
                first = pending.pop()
                return {"type": "http.request", "body": first, "more_body": False}
            return await self.receive()

        return replayed
