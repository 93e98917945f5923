"""Claude Code and Codex, the programs themselves, without internet."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from accounts.models import DocumentCopy, OAuthClient
from tests.clients.install import agents
from tests.support.fork_server import quick_python
from tests.support.server import ROOT, Portico, running_server

pytestmark = [
    pytest.mark.once,
    pytest.mark.node,
    pytest.mark.usefixtures("default_users"),
]
NOWHERE = "http://127.0.0.1:9"
"""Nothing listens here."""
SECONDS = 30


@pytest.fixture(scope="module")
def offline(rows: None, folder: Path) -> Iterator[Portico]:
    """Default settings; the test app makes the resolver fail."""
    apps = "tests.apps.no_internet,tests.apps.shop,tests.apps.wait_guard"
    with running_server(folder, EXTRA_APPS=apps) as running:
        yield running


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """A person with a new home directory, whose browser is a script."""
    OAuthClient.objects.exclude(document_copy=None).delete()
    DocumentCopy.objects.update(enabled=True)
    (tmp_path / ".codex").mkdir()
    browser = tmp_path / "xdg-open"
    browser.write_text(
        f'#!/bin/sh\ncd "{ROOT}"\nVISITOR_RETURNS=1 '
        f'"{quick_python()}" -m tests.support.visitor "$1" >>"{tmp_path}/log" 2>&1 &\n'
    )
    browser.chmod(0o755)
    yield Agent(tmp_path)


class Agent:
    """Runs the programs; only loopback is reachable, also for them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env = {
            "HOME": str(home),
            "PATH": f"{home}:{agents()}:{os.environ['PATH']}",
            "BROWSER": str(home / "xdg-open"),
            "DISPLAY": ":9",
            "HTTP_PROXY": NOWHERE,
            "HTTPS_PROXY": NOWHERE,
            "NO_PROXY": "127.0.0.1,localhost",
            "ANTHROPIC_API_KEY": "none",
            "ANTHROPIC_BASE_URL": NOWHERE,
        }

    def run(self, *command: str) -> str:
        """The output of a command, which has a terminal as its standard input."""
        ours, theirs = pty.openpty()
        try:
            done = subprocess.run(
                command,
                env=self.env,
                cwd=self.home,
                stdin=theirs,
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
        finally:
            os.close(ours)
            os.close(theirs)
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    @contextmanager
    def started(self, *command: str) -> Iterator[Any]:
        """A program that reads and writes lines of JSON."""
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        running = subprocess.Popen(
            ["timeout", str(SECONDS), *command],
            env=self.env,
            cwd=self.home,
            stderr=subprocess.DEVNULL,
            text=True,
            **pipes,
        )
        with running:
            yield running
            running.terminate()


def stands_on_copy(client_id: str) -> bool:
    """Whether the client of this id signed in with a shipped copy."""
    client = OAuthClient.objects.get(client_id=client_id)
    copy = client.document_copy
    return copy is not None and copy.source == DocumentCopy.Source.SHIPPED


def test_codex_signs_in_and_lists_tools(offline: Portico, agent: Agent) -> None:
    """`codex mcp add` opens the browser; its app server lists the tools."""
    added = agent.run("codex", "mcp", "add", "portico", "--url", offline.mcp_url)
    assert "Successfully logged in" in added
    assert agent.run("codex", "mcp", "list").split()[-1] == "OAuth"
    about = {"clientInfo": {"name": "test", "title": "test", "version": "1"}}
    with agent.started("codex", "app-server") as server:
        for message in (
            {"id": 1, "method": "initialize", "params": about},
            {"method": "initialized"},
            {"id": 2, "method": "mcpServerStatus/list", "params": {}},
        ):
            print(json.dumps(message), file=server.stdin, flush=True)
        answers = map(json.loads, server.stdout)
        found = next(a for a in answers if a.get("id") == 2)["result"]["data"]
    [status] = [entry for entry in found if entry["name"] == "portico"]
    assert "look" in status["tools"] and "rule" not in status["tools"]
    assert stands_on_copy("https://chatgpt.com/oauth/codex/client.json")


def test_claude_code_signs_in_and_lists_tools(offline: Portico, agent: Agent) -> None:
    """`claude mcp login` opens the browser; a session starts with the tools."""
    add = ("claude", "mcp", "add", "--transport", "http", "portico", offline.mcp_url)
    agent.run(*add)
    # Only a program whose output is a terminal opens the browser.
    agent.run("script", "-qec", "claude mcp login portico", "/dev/null")
    assert "✔ Connected" in agent.run("claude", "mcp", "list")
    command = ["claude", "-p", "hi", "--output-format", "stream-json", "--verbose"]
    with agent.started(*command) as session:
        session.stdin.close()
        lines = map(json.loads, session.stdout)
        first = next(line for line in lines if line.get("subtype") == "init")
    assert "mcp__portico__look" in first["tools"]
    assert "mcp__portico__rule" not in first["tools"]
    assert stands_on_copy("https://claude.ai/oauth/claude-code-client-metadata")
