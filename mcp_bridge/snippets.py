"""How each client is told of this server: one table, a test each.

The sign-in variant comes first; the token variant is for programs without a browser.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

TOKEN = "YOUR_TOKEN"  # noqa: S105


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
    header = {"Authorization": f"Bearer {TOKEN}"}
    bearer = f"Authorization: Bearer {TOKEN}"
    plain = {"type": "http", "url": url}
    secret = {
        "inputs": [
            {
                "type": "promptString",
                "id": "t",
                "description": "Token",
                "password": True,
            }
        ],
        "servers": {
            "portico": {**plain, "headers": {"Authorization": "Bearer ${input:t}"}}
        },
    }
    config = base64.b64encode(json.dumps({"url": url}).encode()).decode()
    cursor = (
        f"cursor://anysphere.cursor-deeplink/mcp/install?name=portico&config={config}"
    )
    claude = f"claude mcp add --transport http portico {url}"
    inspect = "npx @modelcontextprotocol/inspector --cli"
    call = f"{inspect} {url} --transport http --method tools/list"
    hello = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    curl = (
        f"curl {url} -H '{bearer}' -H 'Content-Type: application/json' "
        "-H 'Accept: application/json, text/event-stream' "
        f"-d '{json.dumps(hello)}'"
    )
    return [
        Snippet(
            "Claude Code", "claude", "a shell", claude, f'{claude} --header "{bearer}"'
        ),
        Snippet(
            "VS Code",
            "vscode",
            ".vscode/mcp.json",
            pretty({"servers": {"portico": plain}}),
            pretty(secret),
        ),
        Snippet(
            "Cursor",
            "cursor",
            "~/.cursor/mcp.json",
            pretty({"mcpServers": {"portico": {"url": url}}}),
            pretty({"mcpServers": {"portico": {"url": url, "headers": header}}}),
            cursor,
        ),
        Snippet(
            "Codex",
            "codex",
            "~/.codex/config.toml, then: codex mcp login portico",
            f'[mcp_servers.portico]\nurl = "{url}"',
            f'[mcp_servers.portico]\nurl = "{url}"\n'
            'bearer_token_env_var = "PORTICO_TOKEN"',
        ),
        Snippet(
            "Inspector", "inspector", "a shell", call, f'{call} --header "{bearer}"'
        ),
        Snippet("curl", "curl", "a shell (it cannot sign in)", "", curl),
    ]
