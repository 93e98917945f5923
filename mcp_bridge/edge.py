"""What is checked before anybody is asked who they are: Host, Origin, body size.

MCP Streamable HTTP, Security: a foreign Origin is 403, a foreign Host 421.
"""

from __future__ import annotations

import asyncio
import re
import types
from collections.abc import Callable, Coroutine, Generator, Iterable
from functools import lru_cache, partial
from typing import TypeVar, cast
from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import split_domain_port, validate_host
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_bridge.answers import Answer, plain, too_large

T = TypeVar("T")
R = TypeVar("R")


class TooLarge(Exception):
    """The body passed MAX_BODY_SIZE."""


class TooSlow(Exception):
    """The body did not arrive within BODY_TIMEOUT."""


class Disconnected(Exception):
    """The client went away while sending."""


def header(scope: Scope, name: bytes) -> str | None:
    """The first value of a header (lower-case name), None if absent."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


def origin_pattern(allowed: Iterable[str]) -> re.Pattern[str]:
    """One expression for `scheme://host[:port]` entries; `:*` is any port or none."""
    own = urlsplit(settings.ISSUER_URL)
    entries = [f"{own.scheme}://{own.netloc}", *allowed]
    parts = [
        re.escape(e.removesuffix(":*")) + (r"(?::\d+)?" if e.endswith(":*") else "")
        for e in entries
    ]
    return re.compile("|".join(parts), re.IGNORECASE)


class Edge:
    """Pure ASGI: 421 for a foreign Host, 403 for a foreign Origin, 413 for a giant."""

    def __init__(self, app: ASGIApp, for_pages: ASGIApp) -> None:
        self.app, self.for_pages = app, for_pages
        self.origins = origin_pattern(settings.ALLOWED_ORIGINS)
        self.hosts = tuple(settings.ALLOWED_HOSTS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may be looked at; what a web page sends, by way of CORS."""
        origin = header(scope, b"origin")
        refusal = self.refusal(scope, origin)
        if refusal is not None:
            await refusal.send(send)
        elif origin is None:
            await self.app(scope, receive, send)
        else:
            await self.for_pages(scope, receive, send)

    def refusal(self, scope: Scope, origin: str | None) -> Answer | None:
        """The answer to a request that goes no further."""
        if not allowed_host(header(scope, b"host") or "", self.hosts):
            return plain(421, "invalid_host", "This host is not in ALLOWED_HOSTS.")
        if origin and not self.origins.fullmatch(origin):
            return plain(
                403, "invalid_origin", "This origin is not in ALLOWED_ORIGINS."
            )
        declared = header(scope, b"content-length") or "0"
        if declared.isdigit() and int(declared) > settings.MAX_BODY_SIZE:
            return too_large()
        return None


@lru_cache(maxsize=256)
def allowed_host(host: str, allowed: tuple[str, ...]) -> bool:
    """Whether a Host header names one of ours."""
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, allowed)


@types.coroutine
def resumed(work: Coroutine[T, None, R], waits_for: T) -> Generator[T, None, R]:
    """The rest of a coroutine that was begun and gave what it waits for."""
    while True:
        try:
            yield waits_for
        except BaseException as error:  # a cancellation is for `work`
            step = partial(work.throw, error)
        else:
            step = partial(work.send, None)
        try:
            waits_for = step()
        except StopIteration as complete:
            return cast(R, complete.value)


class IncomingBody:
    """The body of one request, which may be waited for in several steps."""

    __slots__ = ("chunks", "complete", "grows", "receive", "size")

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.chunks: list[bytes] = []
        self.size, self.complete = 0, False
        self.grows: Callable[[int], None] | None = None
        """Told how much is added; may raise."""

    async def arrives(self, within: float) -> bool:
        """Whether all of it is here within seconds. Raises TooLarge, Disconnected.

        Most bodies are here already; only one that is waited for needs a deadline.
        """
        reading = self.read()
        try:
            waits_for = reading.send(None)
        except StopIteration:
            return True
        try:
            async with asyncio.timeout(within):
                await resumed(reading, waits_for)
        except TimeoutError:
            return False
        return True

    async def read(self) -> None:
        """Take what comes until it is complete, however long it takes."""
        while not self.complete:
            event = await self.receive()
            if event["type"] == "http.disconnect":
                raise Disconnected
            chunk = event.get("body", b"")
            self.size += len(chunk)
            if self.size > settings.MAX_BODY_SIZE:
                raise TooLarge
            if self.grows is not None:
                self.grows(len(chunk))
            self.chunks.append(chunk)
            self.complete = not event.get("more_body", False)

    def content(self) -> bytes:
        """All of it."""
        if len(self.chunks) > 1:
            self.chunks = [b"".join(self.chunks)]
        return self.chunks[0]

    def replay(self) -> Receive:
        """A `receive` that gives the body again, then whatever comes."""
        pending = [self.content()]

        async def replayed() -> Message:
            if pending:
                first = pending.pop()
                return {"type": "http.request", "body": first, "more_body": False}
            return await self.receive()

        return replayed
