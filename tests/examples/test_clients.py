"""The example clients, run as their READMEs say, against a real Portico."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitResult

from accounts.models import IssuedToken, TokenKind
from tests.clients.install import HERE, node
from tests.support.ports import free_port
from tests.support.server import ROOT, Portico, running_server
from tests.support.users import PASSWORD, make_user

pytestmark = pytest.mark.once
EXAMPLES = ROOT / "examples" / "clients"
BOTH = [
    pytest.param("python"),
    pytest.param("typescript", marks=pytest.mark.node),
]


@pytest.fixture(scope="module")
def rows(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The run's database without a transaction, with one account per example."""
    with django_db_blocker.unblock():
        for language in ("python", "typescript"):
            make_user(f"{language}-robot", "Guest")
        yield


@pytest.fixture(scope="module")
def server(rows: None, tmp_path_factory: Any) -> Iterator[Portico]:
    folder = tmp_path_factory.mktemp("server")
    with running_server(folder, EXTRA_APPS="tests.apps.conformance") as running:
        yield running


@pytest.fixture(scope="module")
def short_lived_server(rows: None, tmp_path_factory: Any) -> Iterator[Portico]:
    """A server whose access tokens last two seconds."""
    folder = tmp_path_factory.mktemp("hasty")
    with running_server(folder, EXTRA_APPS="", ACCESS_TOKEN_LIFETIME="2") as running:
        yield running


@pytest.fixture
def program(language: str, tmp_path: Path) -> list[str]:
    """The command of an example, its packages beside it."""
    if language == "python":
        return [sys.executable, str(EXAMPLES / "python" / "client.py")]
    binary = node()
    script = tmp_path / "client.ts"
    script.write_text((EXAMPLES / "typescript" / "client.ts").read_text())
    (tmp_path / "node_modules").symlink_to(HERE / "node_modules")
    return [binary, "--no-warnings", str(script)]


def run(program: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@contextmanager
def program_lines(program: list[str], *arguments: str) -> Iterator[Iterator[str]]:
    """The lines it prints, as it prints them."""
    command = [*program, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield iter(process.stdout)
        finally:
            process.kill()


def read_until(lines: Iterator[str], word: str) -> None:
    """Read until a line begins with `word`."""
    heard = []
    for line in lines:
        heard.append(line)
        if line.startswith(word):
            return
    raise AssertionError(f"It ended without {word!r}: {heard}")


def tokens_of(language: str) -> Any:
    """Access tokens issued to an example, oldest first."""
    owned = IssuedToken.objects.filter(user__username=f"{language}-robot")
    return owned.filter(kind=TokenKind.ACCESS).order_by("issued_at", "pk")


@pytest.mark.parametrize("language", BOTH)
def test_it_lists_calls_and_renews(
    short_lived_server: Portico, language: str, program: list[str]
) -> None:
    """OAuth 2.1 4.3: three calls over two seconds outlast a token; one sign-in."""
    before = set(tokens_of(language).values_list("pk", flat=True))
    name = f"{language}-robot"
    done = run(program, short_lived_server.url, name, PASSWORD, "3")
    assert done.returncode == 0, done.stderr
    assert "tools: whoami\n" in done.stdout
    calls = [line for line in done.stdout.splitlines() if line.startswith("whoami:")]
    assert len(calls) == 3 and all(name in line for line in calls)
    issued = tokens_of(language).exclude(pk__in=before)
    assert len(issued) == done.stdout.count("got a token") >= 2
    assert len({row.family for row in issued}) == 1


@pytest.mark.parametrize("language", BOTH)
def test_it_continues_after_a_401(
    server: Portico, language: str, program: list[str]
) -> None:
    """RFC 6750 3.1: refused between calls it refreshes, else it signs in."""
    before = set(tokens_of(language).values_list("pk", flat=True))
    with program_lines(
        program, server.url, f"{language}-robot", PASSWORD, "30"
    ) as lines:
        read_until(lines, "whoami:")
        tokens_of(language).revoke(actor=None, reason="access token only")
        read_until(lines, "got a token")
        read_until(lines, "whoami:")
        family = tokens_of(language).last().family
        IssuedToken.objects.filter(family=family).revoke(actor=None, reason="all")
        read_until(lines, "got a token")
        read_until(lines, "whoami:")
    first, second, third = tokens_of(language).exclude(pk__in=before)
    assert first.family == second.family != third.family


@pytest.mark.parametrize("language", BOTH)
def test_a_wrong_password_is_one_sentence(
    server: Portico, language: str, program: list[str]
) -> None:
    """The error has no stack trace."""
    done = run(program, server.url, f"{language}-robot", "wrong")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("No token (401)") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("language", ["python"])
def test_a_missing_server_is_one_sentence(program: list[str]) -> None:
    """The error has no stack trace."""
    done = run(program, f"http://127.0.0.1:{free_port()}", "alice", "secret")
    assert done.returncode == 1 and done.stderr.count("\n") == 1


async def call_with_question(url: str, auth: httpx2.Auth) -> str:
    """A call during which the server asks the client on the response stream."""

    async def say(context: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"username": "ada"})

    async with httpx2.AsyncClient(auth=auth, timeout=10) as http:
        transport = streamable_http_client(f"{url}/mcp", http_client=http)
        client = Client(transport, mode="legacy", elicitation_callback=say)
        async with client, asyncio.timeout(10):
            answer = await client.call_tool("test_elicitation", {"message": "Who?"})
    return str(answer.content[0].text)  # type: ignore[union-attr]


def test_streams_are_not_buffered(server: Portico) -> None:
    """MCP 2025-11-25 transports: an answer held until its end would hang."""
    path = EXAMPLES / "python" / "client.py"
    spec = importlib.util.spec_from_file_location("example_client", path)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    auth = example.PorticoTokens(server.url, "python-robot", PASSWORD)
    assert "ada" in asyncio.run(call_with_question(server.url, auth))


def test_its_packages_are_the_tested_versions() -> None:
    """The example's package.json names the versions that the tests run."""
    versions = json.loads((EXAMPLES / "typescript" / "package.json").read_text())
    tried = json.loads((HERE / "package.json").read_text())
    assert versions["dependencies"].items() <= tried["dependencies"].items()
