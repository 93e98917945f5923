"""Session ids with a prefix by which a proxy finds the session's process (2025-11-25).

A proxy's hash of the id does not work: it rarely leads to the process that made it.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event

NAME = b"mcp-session-id"
Pair = tuple[bytes, bytes]


class SessionAffinityMiddleware:
    """Pure ASGI: adds `PREFIX-` to outgoing session ids, removes it from incoming."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app, self.prefix = app, f"{prefix}-".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve with the id in the session manager's form."""

        async def send_prefixed(event: Event) -> None:
            if event["type"] == "http.response.start":
                headers = [self.add_prefix(pair) for pair in event["headers"]]
                event = {**event, "headers": headers}
            await send(event)

        headers = [self.remove_prefix(pair) for pair in scope["headers"]]
        await self.app({**scope, "headers": headers}, receive, send_prefixed)

    def add_prefix(self, pair: Pair) -> Pair:
        """A response header, with the prefix on a session id."""
        return (NAME, self.prefix + pair[1]) if pair[0].lower() == NAME else pair

    def remove_prefix(self, pair: Pair) -> Pair:
        """A request header; another process's prefix stays, so the id is unknown."""
        return (NAME, pair[1].removeprefix(self.prefix)) if pair[0] == NAME else pair
