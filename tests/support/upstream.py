"""Upstream MCP servers for tests: the SDK's own server in a thread, over real HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.support.ports import free_port


@dataclass
class Upstream:
    """A running server; `requests` has the headers and bodies it received."""

    port: int
    requests: list[dict[str, Any]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"


@contextmanager
def serving(app: ASGIApp, upstream: Upstream) -> Iterator[Upstream]:
    """Run an ASGI app in a thread until the block ends."""

    async def recorded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        seen: dict[str, Any] = {
            "method": scope["method"],
            "headers": {k.decode(): v.decode() for k, v in scope["headers"]},
            "body": b"",
        }
        upstream.requests.append(seen)

        async def receiving() -> Message:
            event = await receive()
            seen["body"] += event.get("body", b"")
            return event

        await app(scope, receiving, send)

    config = uvicorn.Config(
        recorded,
        port=upstream.port,
        log_level="critical",
        timeout_graceful_shutdown=1,
        lifespan="on",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield upstream
    finally:
        server.should_exit = True
        thread.join(5)


@contextmanager
def sdk_upstream(
    fill: Callable[[MCPServer[Any], Upstream], None] | None = None, **options: Any
) -> Iterator[Upstream]:
    """The SDK's server with a few tools; `options` are those of its HTTP app."""
    upstream = Upstream(free_port())
    server: MCPServer[Any] = MCPServer("Other", version="1.2.3")
    (fill or usual_tools)(server, upstream)
    app = server.streamable_http_app(**options)
    with serving(app, upstream):
        yield upstream


def usual_tools(server: MCPServer[Any], upstream: Upstream) -> None:
    """add, fail, slow, count; a resource, a template and a prompt."""

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool()
    def fail() -> str:
        """Always fails."""
        raise ValueError("out of stock")

    @server.tool()
    async def slow(seconds: float) -> str:
        """Sleep."""
        try:
            await anyio.sleep(seconds)
        except anyio.get_cancelled_exc_class():
            upstream.cancelled.append("slow")
            raise
        return "awake"

    @server.tool()
    async def count(to: int, ctx: Context[Any, Any]) -> str:
        """Report progress."""
        for number in range(to):
            await ctx.report_progress(number + 1, to)
        return "counted"

    @server.resource("note://one")
    def one() -> str:
        return "the first note"

    @server.resource("note://by/{name}")
    def by(name: str) -> str:
        return f"the note of {name}"

    @server.prompt()
    def greet(name: str) -> str:
        return f"Greet {name}."
