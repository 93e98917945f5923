"""Session ids that tell a proxy in which process the session lives (2025-11-25).

A hash of the id would not do: it rarely leads to the process that made the id.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event

NAME = b"mcp-session-id"
Pair = tuple[bytes, bytes]


class SessionAffinityMiddleware:
    """Pure ASGI: `PREFIX-` before the ids that leave, taken off those that come."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app, self.prefix = app, f"{prefix}-".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve with the id as the session manager knows it."""

        async def marked(event: Event) -> None:
            if event["type"] == "http.response.start":
                headers = [self.leaving(pair) for pair in event["headers"]]
                event = {**event, "headers": headers}
            await send(event)

        headers = [self.coming(pair) for pair in scope["headers"]]
        await self.app({**scope, "headers": headers}, receive, marked)

    def leaving(self, pair: Pair) -> Pair:
        """One header of an answer."""
        return (NAME, self.prefix + pair[1]) if pair[0].lower() == NAME else pair

    def coming(self, pair: Pair) -> Pair:
        """One header of a request; another process' id stays unknown here."""
        return (NAME, pair[1].removeprefix(self.prefix)) if pair[0] == NAME else pair
