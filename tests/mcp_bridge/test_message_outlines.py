"""What /mcp answers to each message and caller, compared with `outlines/`.

After an intended change, write the files again and read the difference:
`NEW_OUTLINES=1 .venv/bin/python -m pytest tests/mcp_bridge/test_message_outlines.py`
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel

from accounts.tokens.principal import Unauthenticated
from mcp_bridge.server.portico_server import PorticoServer, require_decision
from tests.support.asgi import Client
from tests.support.mcp_in_process import McpInProcess, caller
from tests.support.outlines import compare

pytestmark = pytest.mark.once
OUTLINES = Path(__file__).parent / "outlines"
META = "io.modelcontextprotocol/"
NEW, OLD = "2026-07-28", "2025-11-25"
ENVELOPE = {
    f"{META}protocolVersion": NEW,
    f"{META}clientCapabilities": {},
    f"{META}clientInfo": {"name": "tests", "version": "1"},
}
server = PorticoServer("unit", version="3", middleware=[require_decision])


class Weather(BaseModel):
    """Structured output."""

    city: str
    degrees: int


@server.tool(scopes=["Use"], title="The weather")
async def weather(city: str, degrees: int = 20) -> Weather:
    """The weather of a city."""
    return Weather(city=city, degrees=degrees)


@server.tool(scopes=["Use"], sensitive=True)
async def erase(name: str) -> str:
    """Erase something."""
    return f"erased {name}"


@server.tool(scopes=["Other"])
async def other() -> str:
    """For another role."""
    return "other"


@server.tool(scopes=["Use"])
async def fails() -> str:
    """Fails with a detail that nobody may read."""
    raise RuntimeError("a secret of the server")


@server.tool(scopes=["Use"])
async def refuses() -> str:
    """Answers a protocol error."""
    raise MCPError(-32099, "not today", data={"why": "closed"})


@server.tool(scopes=["Use"])
async def closed() -> str:
    """Switched off."""
    return "closed"


@server.resource("note://one", scopes=["Use"])
async def note() -> str:
    """A note."""
    return "text"


@server.resource("note://of/{name}", scopes=["Use"])
async def note_of(name: str) -> str:
    """The note of somebody."""
    return f"text of {name}"


@server.prompt(scopes=["Use"])
async def ask(about: str) -> str:
    """A question."""
    return f"What about {about}?"


CALLERS = {
    "user": caller("user", "Use"),
    "guest": caller("guest"),
    "narrow": caller("narrow", "Use", token_scopes=frozenset({"Other"})),
    "one scope": caller("one scope", "Use", token_scopes=frozenset({"Use"})),
    "both": caller("both", "Use", token_scopes=frozenset({"mcp", "Use"})),
}
REFUSED = {
    "expired": Unauthenticated("expired"),
    "revoked": Unauthenticated("revoked"),
    "unknown": Unauthenticated("unknown_token_or_user"),
}
FIRST = {
    "protocolVersion": OLD,
    "capabilities": {},
    "clientInfo": {"name": "t", "version": "1"},
}
MESSAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "initialize": ("initialize", FIRST),
    "initialize for an unknown version": (
        "initialize",
        {**FIRST, "protocolVersion": "2031-01-01"},
    ),
    "discover": ("server/discover", {}),
    "ping": ("ping", {}),
    "tools": ("tools/list", {}),
    "tools after an unknown cursor": ("tools/list", {"cursor": "x"}),
    "resources": ("resources/list", {}),
    "templates": ("resources/templates/list", {}),
    "prompts": ("prompts/list", {}),
    "weather": ("tools/call", {"name": "weather", "arguments": {"city": "Seoul"}}),
    "weather without a city": ("tools/call", {"name": "weather", "arguments": {}}),
    "erase": ("tools/call", {"name": "erase", "arguments": {"name": "x"}}),
    "other": ("tools/call", {"name": "other"}),
    "fails": ("tools/call", {"name": "fails"}),
    "refuses": ("tools/call", {"name": "refuses"}),
    "closed": ("tools/call", {"name": "closed"}),
    "no such tool": ("tools/call", {"name": "nothing"}),
    "a tool without a name": ("tools/call", {}),
    "a tool whose name is a number": ("tools/call", {"name": 7}),
    "note": ("resources/read", {"uri": "note://one"}),
    "note of somebody": ("resources/read", {"uri": "note://of/alice"}),
    "no such resource": ("resources/read", {"uri": "note://two"}),
    "ask": ("prompts/get", {"name": "ask", "arguments": {"about": "it"}}),
    "ask without an argument": ("prompts/get", {"name": "ask"}),
    "no such prompt": ("prompts/get", {"name": "nothing"}),
    "complete": (
        "completion/complete",
        {
            "ref": {"type": "ref/prompt", "name": "ask"},
            "argument": {"name": "about", "value": "i"},
        },
    ),
    "set the level": ("logging/setLevel", {"level": "debug"}),
    "subscribe": ("resources/subscribe", {"uri": "note://one"}),
    "no such method": ("tools/erase", {}),
}
ODD = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a batch": b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
    "a number": b"7",
    "no version": b'{"id":1,"method":"ping"}',
    "no method": b'{"jsonrpc":"2.0","id":1}',
    "an id that is null": b'{"jsonrpc":"2.0","id":null,"method":"ping"}',
    "an id that is a list": b'{"jsonrpc":"2.0","id":[],"method":"ping"}',
    "params that are a list": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}',
    "a notification": b'{"jsonrpc":"2.0","method":"notifications/initialized"}',
    "a response": b'{"jsonrpc":"2.0","id":1,"result":{}}',
    "a member twice": b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"x"}',
}
HIDDEN = ("at", "duration_ms")
"""Columns of an event that differ in each run."""


@pytest.fixture
def mcp(monkeypatch: pytest.MonkeyPatch, settings: Any) -> McpInProcess:
    settings.MCP_SESSIONS = False
    settings.ISSUER_URL = "https://a.example"
    settings.RESOURCE_URL = "https://a.example/mcp"
    made = McpInProcess(monkeypatch, server)
    made.callers.update({**CALLERS, **REFUSED})
    made.closed.add("closed")
    return made


def encoded(era: str, method: str, params: dict[str, Any]) -> bytes:
    given = {**params, "_meta": ENVELOPE} if era == NEW else params
    request = {"jsonrpc": "2.0", "id": 7, "method": method, "params": given}
    return json.dumps(request).encode()


def headers_for(era: str, method: str, params: dict[str, Any]) -> dict[str, str]:
    """What a client of this era sends beside the body."""
    if era == OLD:
        return {"mcp_protocol_version": era}
    named = params.get("name", params.get("uri"))
    name = {"mcp_name": named} if isinstance(named, str) else {}
    return {"mcp_protocol_version": era, "mcp_method": method, **name}


def shown(reply: Client, mcp: McpInProcess) -> str:
    """Status, headers, body and events, one a line."""
    lines = [f"  {reply.status}"]
    lines += [f"  {name}: {v}" for name, v in sorted(reply.headers.items())]
    body = reply.body.decode()
    if body.startswith("{"):
        body = json.dumps(json.loads(body), sort_keys=True)
    lines.append(f"  {' '.join(body.split())}")
    for event in mcp.events:
        columns = {
            name: value
            for name, value in event._asdict().items()
            if value not in ("", None) and name not in HIDDEN
        }
        lines.append(f"  event {columns}")
    mcp.events.clear()
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("era", [NEW, OLD])
def test_messages_get_the_answers_that_they_got(mcp: McpInProcess, era: str) -> None:
    found = {}
    for name in (*CALLERS, *REFUSED):
        parts = []
        for title, (method, params) in MESSAGES.items():
            if name in REFUSED and title not in ("initialize", "tools", "weather"):
                continue  # They get one answer.
            headers = headers_for(era, method, params)
            reply = mcp.post(name, encoded(era, method, params), **headers)
            parts.append(f"{title}\n{shown(reply, mcp)}")
        found[f"{name.replace(' ', '_')}.txt"] = "\n".join(parts)
    compare(found, OUTLINES / era)


def test_odd_bodies_and_methods_get_the_answers_that_they_got(
    mcp: McpInProcess,
) -> None:
    found = ""
    for title, body in ODD.items():
        for version in (NEW, OLD, "2031-01-01"):
            reply = mcp.post("user", body, mcp_protocol_version=version)
            found += f"{title} in {version}\n{shown(reply, mcp)}\n"
    for verb in ("GET", "DELETE", "PUT", "HEAD", "OPTIONS"):
        reply = mcp.post("user", method=verb)
        found += f"{verb}\n{shown(reply, mcp)}\n"
    compare({"odd.txt": found}, OUTLINES / "odd")
