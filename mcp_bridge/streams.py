"""Open streams end when the right to them does: at expiry or after revocation."""

from __future__ import annotations

import time

import anyio
from django.db import Error as DatabaseError
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event

from accounts.principal import Unauthenticated
from mcp_bridge import draining
from mcp_bridge.current import Call
from mcp_bridge.freshness import facts

LOOK_EVERY = 0.5
"""Seconds between two looks at the rows behind an open stream."""


class Guarded:
    """Pure ASGI: `app`, ended while it streams once its token no longer counts."""

    def __init__(self, app: ASGIApp, call: Call, raw: str) -> None:
        self.app, self.call, self.raw = app, call, raw
        self.streaming = False
        self.address = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve; watch from the first byte of a stream on."""
        self.address = (scope.get("client") or ("", 0))[0]
        async with anyio.create_task_group() as tasks:

            async def noticing(event: Event) -> None:
                opens = event["type"] == "http.response.start" and _is_stream(event)
                await send(event)
                if opens:
                    self.streaming = True
                    tasks.start_soon(self.watch, tasks.cancel_scope)
                elif event["type"] == "http.response.body":
                    self.streaming = self.streaming and event.get("more_body", False)

            await self.app(scope, receive, noticing)
            tasks.cancel_scope.cancel()
        if self.streaming:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def watch(self, stream: anyio.CancelScope) -> None:
        """Look at the rows now and then; they also filter what the stream carries."""
        call = self.call
        while time.time() < call.principal.expires_at and not draining.begun():
            await anyio.sleep(LOOK_EVERY)
            try:
                principal, call.catalogue = await facts(self.raw)
                call.principal = principal.seen_from(self.address)
            except (Unauthenticated, DatabaseError):
                break
        stream.cancel()


def _is_stream(event: Event) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in event["headers"]
    )
