"""Instructions for each client: commands, configuration and links."""

from __future__ import annotations

import base64
import json
import shlex
from typing import Any

import pytest

from mcp_bridge.portal.client_setup import Snippet, snippets

pytestmark = pytest.mark.once
URL = "https://portico.example/mcp"
BEARER = "Authorization: Bearer YOUR_TOKEN"


@pytest.fixture
def by_slug() -> dict[str, Snippet]:
    return {snippet.slug: snippet for snippet in snippets(URL)}


def test_each_client_has_instructions(by_slug: dict[str, Snippet]) -> None:
    assert {slug: (s.client, s.place) for slug, s in by_slug.items()} == {
        "claude": ("Claude Code", "a terminal"),
        "vscode": ("VS Code", ".vscode/mcp.json"),
        "cursor": ("Cursor", "~/.cursor/mcp.json"),
        "codex": ("Codex", "~/.codex/config.toml, then: codex mcp login portico"),
        "inspector": ("Inspector", "a terminal"),
        "curl": ("curl", "a terminal (token only)"),
    }
    assert [s.slug for s in by_slug.values() if s.link] == ["cursor"]
    assert [s.slug for s in by_slug.values() if not s.sign_in] == ["curl"]


def test_claude_code(by_slug: dict[str, Snippet]) -> None:
    add = f"claude mcp add --transport http portico {URL}"
    assert by_slug["claude"].sign_in == add
    assert by_slug["claude"].with_token == f'{add} --header "{BEARER}"'


def test_vscode_prompts_for_the_token(by_slug: dict[str, Snippet]) -> None:
    """The file holds no secret."""
    plain: dict[str, Any] = {"type": "http", "url": URL}
    assert json.loads(by_slug["vscode"].sign_in) == {"servers": {"portico": plain}}
    headers = {"Authorization": "Bearer ${input:t}"}
    assert json.loads(by_slug["vscode"].with_token) == {
        "inputs": [
            {
                "type": "promptString",
                "id": "t",
                "description": "Token",
                "password": True,
            }
        ],
        "servers": {"portico": {**plain, "headers": headers}},
    }


def test_cursor(by_slug: dict[str, Snippet]) -> None:
    cursor = by_slug["cursor"]
    assert json.loads(cursor.sign_in) == {"mcpServers": {"portico": {"url": URL}}}
    headers = {"Authorization": "Bearer YOUR_TOKEN"}
    assert json.loads(cursor.with_token) == {
        "mcpServers": {"portico": {"url": URL, "headers": headers}}
    }
    link, config = cursor.link.split("&config=")
    assert link == "cursor://anysphere.cursor-deeplink/mcp/install?name=portico"
    assert json.loads(base64.b64decode(config)) == {"url": URL}


def test_codex(by_slug: dict[str, Snippet]) -> None:
    plain = f'[mcp_servers.portico]\nurl = "{URL}"'
    assert by_slug["codex"].sign_in == plain
    token = f'{plain}\nbearer_token_env_var = "PORTICO_TOKEN"'
    assert by_slug["codex"].with_token == token


def test_inspector(by_slug: dict[str, Snippet]) -> None:
    call = (
        f"npx @modelcontextprotocol/inspector --cli {URL} --transport http "
        "--method tools/list"
    )
    assert by_slug["inspector"].sign_in == call
    assert by_slug["inspector"].with_token == f'{call} --header "{BEARER}"'


def test_curl_sends_one_valid_message(by_slug: dict[str, Snippet]) -> None:
    words = shlex.split(by_slug["curl"].with_token)
    assert words[:2] == ["curl", URL]
    headers = [
        word for flag, word in zip(words, words[1:], strict=False) if flag == "-H"
    ]
    assert headers == [
        BEARER,
        "Content-Type: application/json",
        "Accept: application/json, text/event-stream",
        "MCP-Protocol-Version: 2026-07-28",
        "Mcp-Method: tools/list",
    ]
    assert words[-2] == "-d"
    assert json.loads(words[-1]) == {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/list",
        "params": {
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            }
        },
    }
