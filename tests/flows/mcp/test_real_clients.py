"""Real clients with a token in a header: SDKs old and new, Python and TypeScript."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from tests.clients.install import HERE, node, older_python, run
from tests.support.server import Portico

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]


async def conversation(url: str, token: str, mode: str) -> dict[str, Any]:
    """List and call with the SDK's own client."""
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=mode) as client:
            tools = (await client.list_tools()).tools
            called = await client.call_tool("whoami", {})
            hidden = await client.call_tool("rule", {})
            resources = (await client.list_resources()).resources
            prompts = (await client.list_prompts()).prompts
    return {
        "tools": [tool.name for tool in tools],
        "whoami": called.content[0].text,  # type: ignore[union-attr]
        "hidden": hidden.content[0].text,  # type: ignore[union-attr]
        "resources": [str(resource.uri) for resource in resources],
        "prompts": [prompt.name for prompt in prompts],
    }


def as_alice(found: dict[str, Any]) -> None:
    """alice's tools, her name, and no tool of an administrator."""
    assert "look" in found["tools"] and "rule" not in found["tools"]
    assert "alice" in found["whoami"] and found["hidden"] == "Unknown tool: rule"
    assert "shop://open" in found["resources"]
    assert "shop://vault" not in found["resources"]
    assert found["prompts"] == ["greet"]


@pytest.mark.parametrize("mode", ["auto", "legacy", "2026-07-28"])
def test_the_python_sdk(server: Portico, mode: str) -> None:
    """mcp 2.x with each way to choose the protocol."""
    token = server.token("alice")
    as_alice(asyncio.run(conversation(server.mcp_url, token, mode)))


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_python_sdk_with_several_workers(workers: Portico, mode: str) -> None:
    token = workers.token("alice")
    as_alice(asyncio.run(conversation(workers.mcp_url, token, mode)))


def test_the_older_python_sdk(server: Portico) -> None:
    """mcp 1.30: the handshake that most clients use today."""
    script = str(HERE / "older.py")
    output = run([older_python(), script, server.mcp_url, server.token("alice")])
    as_alice(json.loads(output))


@pytest.mark.node
@pytest.mark.parametrize("generation", ["1", "2"])
def test_the_typescript_sdk(server: Portico, generation: str) -> None:
    script = str(HERE / "sdk.mjs")
    command = [node(), script, generation, server.mcp_url, server.token("alice")]
    as_alice(json.loads(run(command)))
