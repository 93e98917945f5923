"""Instructions for each client: commands, configuration and links."""

from __future__ import annotations

import base64
import json
import shlex
from typing import Any

import pytest

from mcp_bridge.portal.client_setup import NAMES, Snippet, slug_of, snippets
from tests.tools import client_pages

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
        "claude-desktop": (
            "Claude Desktop and claude.ai",
            "Settings > Connectors > Add custom connector. With a token: "
            "claude_desktop_config.json",
        ),
        "chatgpt": (
            "ChatGPT",
            "Settings > Apps > Advanced settings > Developer mode, then Create app "
            "with OAuth as the authentication",
        ),
        "gemini": ("Gemini CLI", "a terminal, then in Gemini CLI: /mcp auth portico"),
        "windsurf": ("Windsurf", "~/.codeium/windsurf/mcp_config.json"),
        "zed": ("Zed", "settings.json (command: zed: open settings file)"),
        "jetbrains": (
            "JetBrains",
            "Settings > Tools > AI Assistant > Model Context Protocol (MCP) > Add",
        ),
        "goose": ("goose", "~/.config/goose/config.yaml"),
        "opencode": (
            "opencode",
            "~/.config/opencode/opencode.json, then: opencode mcp auth portico",
        ),
        "inspector": ("Inspector", "a terminal"),
        "curl": ("curl", "a terminal (token only)"),
    }
    assert [s.slug for s in by_slug.values() if s.link] == ["cursor"]
    assert [s.slug for s in by_slug.values() if not s.sign_in] == ["curl"]
    assert [s.slug for s in by_slug.values() if not s.with_token] == ["chatgpt"]
    assert [s.slug for s in by_slug.values() if s.note] == ["claude-desktop", "chatgpt"]


HEADERS = {"Authorization": "Bearer YOUR_TOKEN"}
SERVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "windsurf": ("mcpServers", {"serverUrl": URL}),
    "zed": ("context_servers", {"url": URL}),
    "jetbrains": ("mcpServers", {"url": URL}),
}
"""Slug -> the member of the JSON file, and the server without a token."""


@pytest.mark.parametrize("slug", SERVERS)
def test_clients_with_servers_by_name(by_slug: dict[str, Snippet], slug: str) -> None:
    member, server = SERVERS[slug]
    assert json.loads(by_slug[slug].sign_in) == {member: {"portico": server}}
    secret = {member: {"portico": {**server, "headers": HEADERS}}}
    assert json.loads(by_slug[slug].with_token) == secret


def test_claude_desktop_sends_a_token_through_mcp_remote(
    by_slug: dict[str, Snippet],
) -> None:
    """The header has no blank: some systems split arguments there."""
    desktop = by_slug["claude-desktop"]
    assert desktop.sign_in == URL
    (server,) = json.loads(desktop.with_token)["mcpServers"].values()
    header = ["--header", "Authorization:${AUTH}"]
    assert server["args"] == ["-y", "mcp-remote", URL, *header]
    assert server["env"] == {"AUTH": "Bearer YOUR_TOKEN"}


@pytest.mark.parametrize(
    ("url", "reachable"),
    [
        (URL, True),
        ("http://127.0.0.1:8000/mcp", False),
        ("http://localhost:8000/mcp", False),
        ("http://[::1]:8000/mcp", False),
        ("http://LOCALHOST/mcp", False),
        ("https://localhost.example:8000/mcp", True),
        ("https://portico.example/localhost", True),
    ],
)
def test_clients_of_the_vendors_servers_need_a_public_address(
    url: str, reachable: bool
) -> None:
    notes = {s.note for s in snippets(url)} - {""}
    assert [("cannot reach" in note) is not reachable for note in notes] == [True]


def test_gemini_goose_and_opencode(by_slug: dict[str, Snippet]) -> None:
    add = f"gemini mcp add --scope user --transport http portico {URL}"
    assert by_slug["gemini"].sign_in == add
    assert by_slug["gemini"].with_token == f'{add} --header "{BEARER}"'
    goose = by_slug["goose"]
    assert f"    type: streamable_http\n    name: portico\n    uri: {URL}\n" in (
        goose.sign_in
    )
    assert goose.with_token.endswith(f"\n    headers:\n      {BEARER}")
    plain = {"type": "remote", "url": URL, "enabled": True}
    assert json.loads(by_slug["opencode"].sign_in) == {"mcp": {"portico": plain}}
    secret = {**plain, "oauth": False, "headers": HEADERS}
    assert json.loads(by_slug["opencode"].with_token) == {"mcp": {"portico": secret}}


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Claude Code (portico)", "claude"),
        ("Claude", "claude-desktop"),
        ("Visual Studio Code", "vscode"),
        ("VS Code", "vscode"),
        ("Cursor", "cursor"),
        ("ChatGPT", "chatgpt"),
        ("OpenAI connector", "chatgpt"),
        ("Windsurf", "windsurf"),
        ("Codeium", "windsurf"),
        ("Zed", "zed"),
        ("JetBrains AI Assistant", "jetbrains"),
        ("Junie", "jetbrains"),
        ("OpenCode", "opencode"),
        ("codex-mcp-client", "codex"),
        ("Gemini CLI MCP Client", "gemini"),
        ("MCP Inspector", "inspector"),
        ("goose", "goose"),
        ("Zed with Claude Code", "claude"),
        ("Windsurf, made by Codeium", "windsurf"),
        ("Cursor beside Visual Studio Code", "vscode"),
        ("VS Code for JetBrains", "jetbrains"),
        ("Mongoose tools", ""),
        ("Zedboard", ""),
        ("", ""),
    ],
)
def test_a_client_is_known_by_the_name_it_registers(name: str, slug: str) -> None:
    assert slug_of(name) == slug


def test_every_name_belongs_to_a_client(by_slug: dict[str, Snippet]) -> None:
    assert set(NAMES.values()) == by_slug.keys() - {"curl"}


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


def test_the_documentation_has_the_same_instructions() -> None:
    """`python -m tests.tools.client_pages` writes its pages."""
    made = client_pages.pages()
    assert {path: path.read_text() for path in made} == made
    assert set(client_pages.FOLDER.glob("*.md")) == set(made)
    text = (client_pages.FOLDER.parent / "connecting.md").read_text()
    assert [p.name for p in made if f"(clients/{p.name})" not in text] == []


@pytest.mark.parametrize(
    ("slug", "where"),
    [
        ("claude", "Put it in place of `YOUR_TOKEN`."),
        ("codex", "Set it as `PORTICO_TOKEN`"),
        ("vscode", "The client asks for it"),
    ],
)
def test_each_page_says_where_the_token_goes(
    by_slug: dict[str, Snippet], slug: str, where: str
) -> None:
    assert where in client_pages.page(by_slug[slug])
