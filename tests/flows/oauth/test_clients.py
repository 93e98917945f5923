"""npm clients sign users in with a scripted browser."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from accounts.models import Consent, IssuedToken
from tests.clients.install import HERE, MODULES, node, older_python, run
from tests.support.fork_server import quick_python
from tests.support.html_browser import Browser
from tests.support.mcp_client import McpClient
from tests.support.oauth_client import command_line_client
from tests.support.ports import free_port
from tests.support.server import ROOT, Portico
from tests.support.users import PASSWORD

pytestmark = [
    pytest.mark.once,
    pytest.mark.node,
    pytest.mark.usefixtures("default_users"),
]


@pytest.fixture
def visitor(tmp_path: Path) -> Path:
    """A program that acts as the browser, under the names that clients start."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "visitor"
    script.write_text(
        f'#!/bin/sh\ncd "{ROOT}"\n'
        f'exec "{quick_python()}" -m tests.support.visitor "$1"\n'
    )
    script.chmod(0o755)
    for name in ("xdg-open", "open", "www-browser"):
        (folder / name).write_text(
            f'#!/bin/sh\nVISITOR_RETURNS=1 "{script}" "$1" >>"{folder}/log" 2>&1 &\n'
        )
        (folder / name).chmod(0o755)
    return script


def environment(visitor: Path) -> dict[str, str]:
    """A fresh home directory, with the scripted browser first on the path."""
    home = visitor.parent.parent / "home"
    home.mkdir(exist_ok=True)
    path = f"{visitor.parent}:{Path(node()).parent}:{os.environ['PATH']}"
    return {
        "PATH": path,
        "HOME": str(home),
        "BROWSER": str(visitor.parent / "xdg-open"),
        "MCP_INSPECTOR_SECRET_STORE": "file",
        "MCP_AUTO_OPEN_ENABLED": "true",
        "DISPLAY": "",
    }


def revoke_access(server: Portico, client_id: str, access: str) -> None:
    """Revoke access: the next message is refused."""
    live = McpClient(server, access)
    assert live.allowed("look")
    with Browser(server.url) as browser:
        browser.open("/portal/apps/")
        browser.submit(browser.form("password"), login="alice", password=PASSWORD)
        key = str(Consent.objects.get(client__client_id=client_id).pk)
        form = next(
            f for f in browser.forms if ("revoke", key, "Revoke access") in f.buttons
        )
        browser.submit(form, revoke=key)
    assert live.post("ping").status_code == 401


@pytest.mark.parametrize("generation", ["1", "2"])
def test_the_typescript_sdk_signs_a_user_in(
    server: Portico, visitor: Path, generation: str
) -> None:
    """@modelcontextprotocol/sdk 1.x and client 2.x: sign in, list, call, refresh."""
    script = str(HERE / "oauth.mjs")
    command = [node(), script, generation, server.mcp_url, str(visitor)]
    found: dict[str, Any] = json.loads(run(command, 60, **environment(visitor)))
    assert "alice" in found["whoami"] and "alice" in found["again"]
    assert "look" in found["tools"] and found["refreshed"] and found["asked"] == 1
    revoke_access(server, found["client"], found["access"])


def test_the_older_python_sdk_signs_a_user_in(server: Portico, visitor: Path) -> None:
    """mcp 1.30: sign in, call, refresh."""
    command = [older_python(), str(HERE / "older_oauth.py"), server.mcp_url]
    output = run([*command, str(visitor)], 60, **environment(visitor))
    found: dict[str, Any] = json.loads(output)
    assert "alice" in found["whoami"] and "alice" in found["again"]
    assert found["refreshed"] and found["asked"] == 1
    revoke_access(server, found["client"], found["access"])


@pytest.mark.parametrize("protocol", ["legacy", "modern"])
def test_the_inspector_signs_a_user_in(
    server: Portico, visitor: Path, protocol: str
) -> None:
    """MCP Inspector's command line, in both revisions."""
    port = free_port()
    command = [node(), str(MODULES / ".bin" / "mcp-inspector"), "--cli", server.mcp_url]
    command += ["--transport", "http", "--protocol-era", protocol, "--format", "json"]
    command += ["--method", "tools/call", "--tool-name", "whoami"]
    command += ["--callback-url", f"http://127.0.0.1:{port}/oauth/callback"]
    output = run(command, 90, **environment(visitor))
    assert "alice" in output
    last = IssuedToken.objects.filter(issued_via="authorization_code").first()
    assert last is not None and last.username == "alice"


def test_mcp_remote_signs_a_user_in(server: Portico, visitor: Path) -> None:
    """mcp-remote: its second start does not ask again."""
    for start in (1, 2):
        output = remote(server, visitor)
        assert "alice" in output
        log = (visitor.parent / "log").read_text()
        assert log.count("callback") == 1, f"start {start}: {log}"


def remote(server: Portico, visitor: Path) -> str:
    """Speak to mcp-remote over its standard streams."""
    command = [node(), str(MODULES / ".bin" / "mcp-remote"), server.mcp_url]
    command += [str(free_port()), "--host", "127.0.0.1", "--transport", "http-only"]
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment(visitor)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    patience = Timer(45, process.kill)
    patience.start()
    info = {"name": "tests", "version": "1"}
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info}
    whoami = {"name": "whoami", "arguments": {}}
    messages: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": hello},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": whoami},
    ]
    try:
        for message in messages:
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
            process.stdin.flush()
            if message.get("id") == 1:
                process.stdout.readline()
        return process.stdout.readline()
    finally:
        patience.cancel()
        process.kill()
        process.communicate()


def test_the_authorization_conformance_suite_passes(
    server: Portico, visitor: Path, tmp_path: Path
) -> None:
    """No failure and no skipped grant."""
    from tests.flows.mcp.test_conformance import SUITE

    port = free_port()
    back = f"http://127.0.0.1:{port}/callback"
    known = command_line_client("conformance", "--public", "--redirect-uri", back)
    command = [node(), str(SUITE), "authorization", "--url", server.url]
    command += ["--client-id", known["client_id"], "-p", str(port), "-o", str(tmp_path)]
    env = {**os.environ, **environment(visitor)}
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    patience = Timer(45, process.kill)
    patience.start()
    printed = ""
    for line in process.stdout:
        printed += line
        start = line.find(f"{server.url}/oauth/authorize?")
        if start >= 0:
            opener = str(visitor.parent / "xdg-open")
            subprocess.run([opener, line[start:].split()[0]], env=env, check=True)
    process.communicate(timeout=60)
    patience.cancel()
    checks = [
        check
        for path in tmp_path.glob("**/checks.json")
        for check in json.loads(path.read_text())
    ]
    states = {check["id"]: check["status"] for check in checks}
    failed = [check for check in checks if check["status"] == "FAILURE"]
    assert not failed, json.dumps(failed)
    assert len({p.parent for p in tmp_path.glob("**/checks.json")}) == 2, printed
    assert set(states.values()) <= {"SUCCESS", "INFO"}, states
