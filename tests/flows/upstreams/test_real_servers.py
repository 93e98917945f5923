"""Upstream servers that others wrote, discovered, accepted and called over HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from accounts.models import Scope
from mcp_bridge.models import CredentialMode, Primitive, UpstreamServer
from mcp_bridge.upstreams.discovery import discover
from tests.clients.install import HERE, fastmcp_python, node, older_python
from tests.support.mcp_client import ERAS, McpClient, message_in
from tests.support.ports import free_port
from tests.support.server import Portico
from tests.support.upstream_servers import upstream_row

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]


@contextmanager
def program(command: list[str], port: int, log: Path, **env: str) -> Iterator[str]:
    """Run a server until the test ends; yields its MCP URL."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=HERE, env=os.environ | env, stdout=out, stderr=out
        )
        try:
            end = time.monotonic() + 60
            while True:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                assert process.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < end, log.read_text()[-2000:]
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.terminate()
            process.wait(10)


def accept_all(server: UpstreamServer) -> dict[str, str]:
    """Discover, accept everything and give it to the role User: name -> state."""
    discover(server)
    scope = Scope.objects.get(name="User.Read")
    for row in Primitive.objects.filter(upstream=server, state="held"):
        row.accept_definition()
        row.required_scopes.add(scope)
    rows = Primitive.objects.filter(upstream=server)
    return dict(rows.values_list("name", "state"))


def result_of(alice: McpClient, tool: str, **arguments: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    answer = message_in(alice.post("tools/call", params))
    found: dict[str, Any] = answer["result"]
    return found


def text_of(alice: McpClient, tool: str, **arguments: Any) -> str:
    found = result_of(alice, tool, **arguments)
    assert not found.get("isError"), found
    return str(found["content"][0]["text"])


def listed(alice: McpClient) -> set[str]:
    tools = message_in(alice.post("tools/list"))["result"]["tools"]
    return {tool["name"] for tool in tools}


@pytest.mark.parametrize("options", ["", "json", "stateless", "stateless json"])
def test_the_older_python_sdk(server: Portico, tmp_path: Path, options: str) -> None:
    """With sessions and without, with streams and with JSON."""
    port = free_port()
    command = [older_python(), str(HERE / "older_server.py"), str(port)]
    log = tmp_path / "log"
    with program([*command, *options.split()], port, log) as url:
        acme = upstream_row(url)
        assert accept_all(acme) == {"acme__add": "accepted", "acme__count": "accepted"}
        for era in ERAS:
            alice = McpClient(server, server.token("alice"), era).open()
            assert {"acme__add", "acme__count"} <= listed(alice)
            assert text_of(alice, "acme__add", a=2, b=3) == "5"
            assert text_of(alice, "acme__count", to=3) == "counted to 3"
        acme.delete()


@pytest.mark.node
def test_the_reference_server_of_npm(server: Portico, tmp_path: Path) -> None:
    """@modelcontextprotocol/server-everything over streamable HTTP."""
    port = free_port()
    script = "node_modules/@modelcontextprotocol/server-everything/dist/index.js"
    command = [node(), script, "streamableHttp"]
    with program(command, port, tmp_path / "log", PORT=str(port)) as url:
        acme = upstream_row(url, name="every")
        states = accept_all(acme)
        assert len(states) > 10 and set(states.values()) == {"accepted"}, states
        for era in ERAS:
            alice = McpClient(server, server.token("alice"), era).open()
            assert "every__echo" in listed(alice)
            assert "hi" in text_of(alice, "every__echo", message="hi")
            answer = message_in(alice.post("prompts/list"))["result"]["prompts"]
            assert any(prompt["name"].startswith("every__") for prompt in answer)
        acme.delete()


def test_fastmcp_verifies_the_signed_assertion(server: Portico, tmp_path: Path) -> None:
    """It reads Portico's keys and gets the person, not the person's token."""
    port = free_port()
    script, url = str(HERE / "fastmcp_server.py"), f"http://127.0.0.1:{port}/mcp"
    keys = f"{server.url}/oauth/jwks.json"
    command = [fastmcp_python(), script, str(port), keys, server.url, url]
    with program(command, port, tmp_path / "log"):
        acme = upstream_row(url, credential_mode=CredentialMode.SIGNED_ASSERTION)
        with server.settings():
            assert accept_all(acme) == {"acme__who": "accepted"}
        for era in ERAS:
            alice = McpClient(server, server.token("alice"), era).open()
            assert text_of(alice, "acme__who") == "alice"
        acme.delete()
