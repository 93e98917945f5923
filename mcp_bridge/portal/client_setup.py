"""Setup instructions for each client; a test covers each.

The first variant signs in with a browser; the second uses a token.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from django.utils.translation import gettext as _

TOKEN = "YOUR_TOKEN"  # noqa: S105
PROTOCOL, META_PREFIX = "2026-07-28", "io.modelcontextprotocol/"
BEARER = f"Authorization: Bearer {TOKEN}"


@dataclass(frozen=True, slots=True)
class Snippet:
    """Commands or configuration for one client."""

    client: str
    slug: str
    place: str
    sign_in: str
    with_token: str
    link: str = ""


def pretty(value: object) -> str:
    return json.dumps(value, indent=2)


def snippets(url: str) -> list[Snippet]:
    """Instructions for every client, with the URL of the MCP endpoint."""
    return [
        claude(url),
        vscode(url),
        cursor(url),
        codex(url),
        inspector(url),
        curl(url),
    ]


def claude(url: str) -> Snippet:
    add = f"claude mcp add --transport http portico {url}"
    with_token = f'{add} --header "{BEARER}"'
    return Snippet("Claude Code", "claude", _("a terminal"), add, with_token)


def vscode(url: str) -> Snippet:
    """VS Code prompts for the token and stores it, so the file holds no secret."""
    plain = {"type": "http", "url": url}
    prompt = {"type": "promptString", "id": "t", "description": "Token"}
    headers = {"Authorization": "Bearer ${input:t}"}
    secret = {
        "inputs": [{**prompt, "password": True}],
        "servers": {"portico": {**plain, "headers": headers}},
    }
    sign_in = {"servers": {"portico": plain}}
    where = ".vscode/mcp.json"
    return Snippet("VS Code", "vscode", where, pretty(sign_in), pretty(secret))


def cursor(url: str) -> Snippet:
    """Cursor, with its install link."""
    config = base64.b64encode(json.dumps({"url": url}).encode()).decode()
    link = "cursor://anysphere.cursor-deeplink/mcp/install?name=portico&config="
    plain = {"mcpServers": {"portico": {"url": url}}}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    secret = {"mcpServers": {"portico": {"url": url, "headers": headers}}}
    where = "~/.cursor/mcp.json"
    texts = pretty(plain), pretty(secret)
    return Snippet("Cursor", "cursor", where, *texts, f"{link}{config}")


def codex(url: str) -> Snippet:
    plain = f'[mcp_servers.portico]\nurl = "{url}"'
    with_token = f'{plain}\nbearer_token_env_var = "PORTICO_TOKEN"'
    where = _("~/.codex/config.toml, then: codex mcp login portico")
    return Snippet("Codex", "codex", where, plain, with_token)


def inspector(url: str) -> Snippet:
    inspect = "npx @modelcontextprotocol/inspector --cli"
    call = f"{inspect} {url} --transport http --method tools/list"
    with_token = f'{call} --header "{BEARER}"'
    return Snippet("Inspector", "inspector", _("a terminal"), call, with_token)


def curl(url: str) -> Snippet:
    """curl: one message of the stateless protocol version."""
    headers = [
        BEARER,
        "Content-Type: application/json",
        "Accept: application/json, text/event-stream",
        f"MCP-Protocol-Version: {PROTOCOL}",
        "Mcp-Method: tools/list",
    ]
    meta = {
        f"{META_PREFIX}protocolVersion": PROTOCOL,
        f"{META_PREFIX}clientCapabilities": {},
    }
    params = {"_meta": meta}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params}
    parts = [f"-H '{header}'" for header in headers]
    command = " ".join(["curl", url, *parts, f"-d '{json.dumps(body)}'"])
    return Snippet("curl", "curl", _("a terminal (token only)"), "", command)
