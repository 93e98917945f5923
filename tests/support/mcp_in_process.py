"""/mcp in process, without a database: callers, rules and events in memory."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

import pytest

from accounts.tokens.principal import Principal, Unauthenticated
from mcp_bridge.access.catalogue import Catalogue, Rule
from mcp_bridge.audit import trail
from mcp_bridge.audit.bulk_insert import CallEvent
from mcp_bridge.cache import recheck
from mcp_bridge.middleware import authorization
from mcp_bridge.middleware.authorization import AuthorizationMiddleware
from mcp_bridge.server import transport as transports
from mcp_bridge.server.portico_server import PorticoServer
from mcp_bridge.server.transport import Transport
from tests.support.asgi import Client, Event, chunk, http_scope, run
from tests.support.session_rows import SessionRows

JSON_TYPES = {
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
}


def caller(name: str = "alice", *scopes: str, **changed: Any) -> Principal:
    """A principal whose role `Crew` grants `scopes`; its token carries `mcp`."""
    values: dict[str, Any] = {
        "user_id": 1,
        "username": name,
        "client_id": "the-client",
        "jti": f"jti-{name}",
        "issued_via": "password",
        "roles": ("Crew",),
        "grants": MappingProxyType(dict.fromkeys(scopes, ("Crew",))),
        "token_scopes": frozenset({"mcp"}),
        "expires_at": 2_000_000_000,
        "valid_until": time.time() + 60,
    }
    return Principal(**{**values, **changed})


def message(method: str, **params: Any) -> bytes:
    """A JSON-RPC request."""
    return json.dumps(
        {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    ).encode()


def called(tool: str, **arguments: Any) -> bytes:
    return message("tools/call", name=tool, arguments=arguments)


class McpInProcess:
    """The middleware around one server; tokens are the keys of `callers`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, server: PorticoServer) -> None:
        self.server = server
        self.callers: dict[str, Principal | Exception] = {}
        self.closed: set[str] = set()
        """Names of disabled primitives."""
        self.reads: list[str] = []
        self.events: list[CallEvent] = []
        self.audit_error: Exception | None = None
        self.on_read: Callable[[], None] = lambda: None
        monkeypatch.setattr(authorization, "resolve_token", self.resolve)
        monkeypatch.setattr(recheck, "resolve_token", self.resolve)
        monkeypatch.setattr(trail, "write_event", self.write_event)
        owner = trail.TokenOwner("bob", 5, "token of bob")
        monkeypatch.setattr(trail, "token_owner", lambda claims: owner)
        monkeypatch.setattr(trail.last_used, "track", lambda *used: None)
        monkeypatch.setattr(transports, "freeze_start_objects", lambda: None)
        monkeypatch.setattr(gc, "unfreeze", lambda: None)
        self.rows = SessionRows(monkeypatch)

    def rules(self) -> Catalogue:
        """As the server's decorators propose."""
        return Catalogue(
            Rule(kind, name, name not in self.closed, sensitive, frozenset(scopes))
            for (kind, name), (scopes, sensitive) in self.server.access.items()
        )

    async def resolve(self, raw: str) -> tuple[Principal, Catalogue]:
        """Replaces the read of the rows."""
        self.reads.append(raw)
        self.on_read()
        found = self.callers.get(raw, Unauthenticated("unknown_token_or_user"))
        if isinstance(found, Exception):
            raise found
        return found, self.rules()

    async def write_event(self, event: CallEvent) -> None:
        """Replaces the audit's writer."""
        if self.audit_error is not None:
            raise self.audit_error
        self.events.append(event)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[AuthorizationMiddleware]:
        transport = Transport(self.server)
        async with transport.running():
            yield AuthorizationMiddleware(transport)

    def story(
        self, tell: Callable[[AuthorizationMiddleware], Coroutine[Any, Any, None]]
    ) -> None:
        """Run `tell` on the running application."""

        async def told() -> None:
            async with self.running() as app:
                await tell(app)

        run(told())

    def post(
        self, token: str, *body: bytes | Event, method: str = "POST", **headers: str
    ) -> Client:
        """The response to one request; a body of several parts is complete."""
        parts = [chunk(p, more=True) if isinstance(p, bytes) else p for p in body]
        parts = parts or [chunk(b"")]
        if parts[-1]["type"] == "http.request":
            parts[-1] = {**parts[-1], "more_body": False}
        client = Client(parts)

        async def tell(app: AuthorizationMiddleware) -> None:
            scope = authorized(token, method, headers)
            await app(scope, client.receive, client.send)

        self.story(tell)
        return client


def authorized(
    token: str, method: str = "POST", headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The scope of a request with this token."""
    named = {k.replace("_", "-"): v for k, v in (headers or {}).items()}
    bearer = {"authorization": f"Bearer {token}"}
    identity = {"x-request-id": "request-1"}
    return http_scope(method, headers={**JSON_TYPES, **bearer, **identity, **named})


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Let other tasks run until the condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)
