"""Setup instructions for each client; a test covers each.

The first variant signs in with a browser; the second uses a token. Sources: the
documentation of each client, and its own commands where a test runs them.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from django.utils.translation import gettext as _

from accounts.oauth.redirect_uris import is_loopback

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
    note: str = ""
    """What to know first; empty if nothing."""


def pretty(value: object) -> str:
    return json.dumps(value, indent=2)


def snippets(url: str) -> list[Snippet]:
    """Instructions for every client, with the URL of the MCP endpoint."""
    return [
        claude(url),
        claude_desktop(url),
        vscode(url),
        cursor(url),
        codex(url),
        chatgpt(url),
        gemini(url),
        windsurf(url),
        zed(url),
        jetbrains(url),
        goose(url),
        opencode(url),
        inspector(url),
        curl(url),
    ]


NAMES = {
    "claude code": "claude",
    "claude": "claude-desktop",
    "visual studio code": "vscode",
    "vs code": "vscode",
    "cursor": "cursor",
    "codex": "codex",
    "chatgpt": "chatgpt",
    "openai": "chatgpt",
    "gemini": "gemini",
    "windsurf": "windsurf",
    "codeium": "windsurf",
    "zed": "zed",
    "jetbrains": "jetbrains",
    "junie": "jetbrains",
    "goose": "goose",
    "opencode": "opencode",
    "inspector": "inspector",
}
"""A part of the name with which a client registers, in lower case -> slug."""


def slug_of(client_name: str) -> str:
    """The slug of a registered client by its name; empty if no name fits.

    The longest part decides: "Claude Code (portico)" is not Claude Desktop.
    """
    words = f" {re.sub('[^a-z0-9]+', ' ', client_name.lower())} "
    fitting = [part for part in NAMES if f" {part} " in words]
    return NAMES[max(fitting, key=len)] if fitting else ""


def reachable_note(url: str) -> str:
    """For clients whose vendor connects from its own servers."""
    host = urlsplit(url).hostname or ""
    if is_loopback(host):
        return _(
            "This client connects from the servers of its vendor, which cannot reach "
            "this address. It needs a public https address."
        )
    return _("This client connects from the servers of its vendor.")


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


def claude_desktop(url: str) -> Snippet:
    """A connector (claude.ai has the same page); a token goes through mcp-remote."""
    arguments = ["-y", "mcp-remote", url, "--header", "Authorization:${AUTH}"]
    bridge = {
        "command": "npx",
        "args": arguments,
        "env": {"AUTH": f"Bearer {TOKEN}"},
    }
    secret = pretty({"mcpServers": {"portico": bridge}})
    where = _(
        "Settings > Connectors > Add custom connector. With a token: "
        "claude_desktop_config.json"
    )
    name = _("Claude Desktop and claude.ai")
    return Snippet(name, "claude-desktop", where, url, secret, note=reachable_note(url))


def chatgpt(url: str) -> Snippet:
    """An app of ChatGPT's developer mode, which takes no token."""
    where = _(
        "Settings > Apps > Advanced settings > Developer mode, then Create app with "
        "OAuth as the authentication"
    )
    return Snippet("ChatGPT", "chatgpt", where, url, "", note=reachable_note(url))


def gemini(url: str) -> Snippet:
    add = f"gemini mcp add --scope user --transport http portico {url}"
    with_token = f'{add} --header "{BEARER}"'
    where = _("a terminal, then in Gemini CLI: /mcp auth portico")
    return Snippet("Gemini CLI", "gemini", where, add, with_token)


def windsurf(url: str) -> Snippet:
    plain = {"serverUrl": url}
    return by_header(
        "Windsurf", "~/.codeium/windsurf/mcp_config.json", "mcpServers", plain
    )


def zed(url: str) -> Snippet:
    where = _("settings.json (command: zed: open settings file)")
    return by_header("Zed", where, "context_servers", {"url": url})


def jetbrains(url: str) -> Snippet:
    where = _("Settings > Tools > AI Assistant > Model Context Protocol (MCP) > Add")
    return by_header("JetBrains", where, "mcpServers", {"url": url})


def by_header(client: str, place: str, member: str, server: dict[str, Any]) -> Snippet:
    """A client whose JSON has servers by name, with optional headers."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    plain, secret = (
        pretty({member: {"portico": found}})
        for found in (server, {**server, "headers": headers})
    )
    return Snippet(client, client.lower(), place, plain, secret)


def goose(url: str) -> Snippet:
    lines = [
        "extensions:",
        "  portico:",
        "    enabled: true",
        "    type: streamable_http",
        "    name: portico",
        f"    uri: {url}",
        "    timeout: 300",
    ]
    plain = "\n".join(lines)
    secret = f"{plain}\n    headers:\n      Authorization: Bearer {TOKEN}"
    return Snippet("goose", "goose", "~/.config/goose/config.yaml", plain, secret)


def opencode(url: str) -> Snippet:
    plain = {"type": "remote", "url": url, "enabled": True}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    secret = {**plain, "oauth": False, "headers": headers}
    where = _("~/.config/opencode/opencode.json, then: opencode mcp auth portico")
    texts = [pretty({"mcp": {"portico": found}}) for found in (plain, secret)]
    return Snippet("opencode", "opencode", where, *texts)


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
