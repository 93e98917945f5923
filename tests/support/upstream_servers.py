"""Upstream MCP servers for tests: the SDK's own server over real HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_bridge.models import Offer, Primitive, UpstreamServer
from tests.support.ports import free_port


@dataclass
class Seen:
    """What an upstream server received."""

    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)


@dataclass
class RunningUpstream:
    """A server on a port of loopback."""

    port: int
    seen: Seen
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"


def sdk_server(seen: Seen) -> MCPServer[Any]:
    """A server with one primitive of each kind that a test needs."""
    server = MCPServer[Any]("upstream", version="1.2.3", instructions="Be careful.")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool()
    async def count(to: int, ctx: Context[Any, Any]) -> str:
        """Report progress `to` times."""
        for step in range(to):
            await ctx.report_progress(step + 1, to, f"step {step + 1}")
        return f"counted to {to}"

    @server.tool()
    async def wait(seconds: float) -> str:
        """Answer late."""
        try:
            await anyio.sleep(seconds)
        except anyio.get_cancelled_exc_class():
            seen.cancelled.append("wait")
            raise
        return "waited"

    @server.tool()
    def fail() -> str:
        """Raise."""
        raise ValueError("nothing works")

    @server.resource("up://text")
    def text() -> str:
        """A text."""
        return "upstream text"

    @server.resource("up://note/{name}")
    def note(name: str) -> str:
        """A note."""
        return f"note {name}"

    @server.prompt()
    def greet(name: str) -> str:
        """Greet somebody."""
        return f"Say hello to {name}."

    return server


def watched(app: ASGIApp, seen: Seen) -> ASGIApp:
    """`app`, with headers and bodies of its requests in `seen`."""

    async def watch(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = {k.decode(): v.decode("latin-1") for k, v in scope["headers"]}
        seen.headers.append(headers)

        async def received() -> Any:
            event = await receive()
            if event["type"] == "http.request" and event.get("body"):
                seen.bodies.append(json.loads(event["body"]))
            return event

        await app(scope, received, send)

    return watch


@contextmanager
def serving(app: ASGIApp, seen: Seen | None = None) -> Iterator[RunningUpstream]:
    """Serve an ASGI application on loopback from a thread."""
    port, found = free_port(), seen or Seen()
    config = uvicorn.Config(app, port=port, log_level="critical", ws="none")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield RunningUpstream(port, found)
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)


@contextmanager
def running_upstream(
    *, legacy: bool = False, **options: Any
) -> Iterator[RunningUpstream]:
    """The SDK's server; `legacy` refuses 2026-07-28, options as streamable_http_app."""
    seen = Seen()
    app: ASGIApp = sdk_server(seen).streamable_http_app(**options)
    if legacy:
        app = without_modern(app)
    with serving(watched(app, seen), seen) as running:
        running.options = options
        yield running


def without_modern(app: ASGIApp) -> ASGIApp:
    """A server that knows only the older protocols, as most servers do."""

    async def older(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        if headers.get(b"mcp-protocol-version") == b"2026-07-28":
            body = (
                b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Bad"}}'
            )
            head = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 400, "headers": head})
            await send({"type": "http.response.body", "body": body})
            return
        await app(scope, receive, send)

    return older


def upstream_row(url: str, name: str = "acme", **fields: Any) -> UpstreamServer:
    """A row for the server at `url`."""
    UpstreamServer.objects.filter(name=name).delete()
    return UpstreamServer.objects.create(
        name=name, url=url, **{"prefix": name, **fields}
    )


def accepted(
    server: UpstreamServer, kind: str, own_name: str, **shown: Any
) -> Primitive:
    """An accepted primitive of the server, that the role User may use."""
    named = kind in ("tool", "prompt")
    name = f"{server.prefix}__{own_name}" if named and server.prefix else own_name
    key = {"resource": "uri", "resource_template": "uriTemplate"}.get(kind, "name")
    definition = {"name": name, key: name, **shown}
    if kind == "tool":
        definition.setdefault("inputSchema", {"type": "object"})
    offer = Offer(
        kind, name, "", "", ("User.Read",), False, own_name, definition, own_name
    )
    known = [
        Offer(
            row.kind,
            row.name,
            "",
            "",
            (),
            False,
            row.definition,
            row.offered or {},
            row.upstream_name,
        )
        for row in Primitive.objects.filter(upstream=server)
    ]
    Primitive.objects.sync([*known, offer], server)
    return Primitive.objects.get(kind=kind, name=name)
