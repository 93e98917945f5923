"""A minimal MCP client over HTTP, for both protocol revisions."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx2
import pytest

from tests.support.server import Portico

MODERN, LEGACY = "2026-07-28", "2025-11-25"
ERAS = [MODERN, LEGACY]
ERAS_ONCE = [MODERN, pytest.param(LEGACY, marks=pytest.mark.once)]
"""For tests of the database, on which the revision has no influence."""
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
META = "io.modelcontextprotocol/"
HTTP = httpx2.Client(timeout=20)
"""One pool of connections for all clients; closed when the run ends."""


def message_in(response: httpx2.Response) -> dict[str, Any]:
    """The JSON-RPC message of a JSON or one-event SSE response."""
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        data = [
            line[6:] for line in response.text.splitlines() if line.startswith("data: ")
        ]
        found: dict[str, Any] = json.loads(data[-1])
        return found
    answer: dict[str, Any] = response.json()
    return answer


@dataclass
class McpClient:
    """One client: a token, a revision, and in the older one perhaps a session."""

    server: Portico
    token: str
    era: str = MODERN
    session: str = ""
    http: httpx2.Client = field(default_factory=lambda: HTTP)
    ids: Any = field(default_factory=lambda: count(1))

    def headers(self, method: str, params: dict[str, Any]) -> dict[str, str]:
        """The headers of a client of this revision."""
        found = {
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": self.era,
        }
        if self.token:
            found["authorization"] = f"Bearer {self.token}"
        if self.era == MODERN:
            found["mcp-method"] = method
            if method in NAMED and NAMED[method] in params:
                found["mcp-name"] = str(params[NAMED[method]])
        elif self.session:
            found["mcp-session-id"] = self.session
        return found

    def post(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        extra: dict[str, str] | None = None,
    ) -> httpx2.Response:
        """Send one request and return the whole response."""
        params = dict(params or {})
        headers = {**self.headers(method, params), **(extra or {})}
        if self.era == MODERN:
            meta = {f"{META}protocolVersion": MODERN, f"{META}clientCapabilities": {}}
            params["_meta"] = {**meta, **params.get("_meta", {})}
        body = {"jsonrpc": "2.0", "id": next(self.ids), "method": method}
        return self.http.post(
            self.server.mcp_url, json={**body, "params": params}, headers=headers
        )

    def open(self) -> McpClient:
        """Initialize in the older revision; the newer one has no handshake."""
        if self.era == LEGACY:
            info = {"name": "wire", "version": "1"}
            hello = {"protocolVersion": self.era, "capabilities": {}}
            response = self.post("initialize", {**hello, "clientInfo": info})
            assert response.status_code == 200, response.text
            self.session = response.headers.get("mcp-session-id", "")
            self.notify("notifications/initialized")
        return self

    def notify(self, method: str) -> httpx2.Response:
        body = {"jsonrpc": "2.0", "method": method}
        headers = self.headers(method, {})
        return self.http.post(self.server.mcp_url, json=body, headers=headers)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The JSON-RPC message that answers a request."""
        return message_in(self.post(method, params))

    def call(self, tool: str, **arguments: Any) -> httpx2.Response:
        return self.post("tools/call", {"name": tool, "arguments": arguments})

    def text(self, tool: str, **arguments: Any) -> str:
        """The text of a tool's response."""
        message = message_in(self.call(tool, **arguments))
        return str(message["result"]["content"][0]["text"])

    def allowed(self, tool: str) -> bool:
        """Whether a call succeeds now (not 401, 403 or unknown)."""
        response = self.call(tool)
        if response.status_code != 200:
            return False
        return not message_in(response)["result"].get("isError", False)

    def tools(self) -> set[str]:
        listed = self.ask("tools/list")["result"]["tools"]
        return {tool["name"] for tool in listed}


def mcp_client(
    server: Portico, username: str, era: str = MODERN, **options: Any
) -> McpClient:
    return McpClient(server, server.token(username, **options), era).open()


def challenge(response: httpx2.Response) -> dict[str, str]:
    """The parameters of WWW-Authenticate: Bearer."""
    scheme, _, rest = response.headers["www-authenticate"].partition(" ")
    assert scheme == "Bearer"
    pairs = (part.partition("=") for part in rest.split(", "))
    return {name: value.strip('"') for name, _, value in pairs}
