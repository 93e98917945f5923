"""How each client is told of this server: one table, a test each.

The sign-in variant comes first; the token variant is for programs without a browser.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from django.utils.translation import gettext as _

TOKEN = "YOUR_TOKEN"  # noqa: S105
PROTOCOL, OURS = "2026-07-28", "io.modelcontextprotocol/"
BEARER = f"Authorization: Bearer {TOKEN}"


@dataclass(frozen=True, slots=True)
class Snippet:
    """What to type or paste for one client."""

    client: str
    slug: str
    place: str
    sign_in: str
    with_token: str
    link: str = ""


def pretty(value: object) -> str:
    """JSON as people paste it."""
    return json.dumps(value, indent=2)


def snippets(url: str) -> list[Snippet]:
    """For every client, with the real URL of the MCP endpoint filled in."""
    return [
        claude(url),
        vscode(url),
        cursor(url),
        codex(url),
        inspector(url),
        curl(url),
    ]


def claude(url: str) -> Snippet:
    """Claude Code."""
    add = f"claude mcp add --transport http portico {url}"
    with_token = f'{add} --header "{BEARER}"'
    return Snippet("Claude Code", "claude", _("a shell"), add, with_token)


def vscode(url: str) -> Snippet:
    """VS Code; it asks for the token and keeps it, so that the file holds none."""
    plain = {"type": "http", "url": url}
    asked = {"type": "promptString", "id": "t", "description": "Token"}
    headers = {"Authorization": "Bearer ${input:t}"}
    secret = {
        "inputs": [{**asked, "password": True}],
        "servers": {"portico": {**plain, "headers": headers}},
    }
    sign_in = {"servers": {"portico": plain}}
    where = ".vscode/mcp.json"
    return Snippet("VS Code", "vscode", where, pretty(sign_in), pretty(secret))


def cursor(url: str) -> Snippet:
    """Cursor, with the link that installs it."""
    config = base64.b64encode(json.dumps({"url": url}).encode()).decode()
    link = "cursor://anysphere.cursor-deeplink/mcp/install?name=portico&config="
    plain = {"mcpServers": {"portico": {"url": url}}}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    secret = {"mcpServers": {"portico": {"url": url, "headers": headers}}}
    where = "~/.cursor/mcp.json"
    texts = pretty(plain), pretty(secret)
    return Snippet("Cursor", "cursor", where, *texts, f"{link}{config}")


def codex(url: str) -> Snippet:
    """Codex."""
    plain = f'[mcp_servers.portico]\nurl = "{url}"'
    with_token = f'{plain}\nbearer_token_env_var = "PORTICO_TOKEN"'
    where = _("~/.codex/config.toml, then: codex mcp login portico")
    return Snippet("Codex", "codex", where, plain, with_token)


def inspector(url: str) -> Snippet:
    """MCP Inspector's command line."""
    inspect = "npx @modelcontextprotocol/inspector --cli"
    call = f"{inspect} {url} --transport http --method tools/list"
    with_token = f'{call} --header "{BEARER}"'
    return Snippet("Inspector", "inspector", _("a shell"), call, with_token)


def curl(url: str) -> Snippet:
    """curl: one message of the protocol that has no sessions."""
    headers = [
        BEARER,
        "Content-Type: application/json",
        "Accept: application/json, text/event-stream",
        f"MCP-Protocol-Version: {PROTOCOL}",
        "Mcp-Method: tools/list",
    ]
    meta = {f"{OURS}protocolVersion": PROTOCOL, f"{OURS}clientCapabilities": {}}
    params = {"_meta": meta}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params}
    parts = [f"-H '{header}'" for header in headers]
    command = " ".join(["curl", url, *parts, f"-d '{json.dumps(asked)}'"])
    return Snippet("curl", "curl", _("a shell (it cannot sign in)"), "", command)
