"""Production as documented: nginx, TLS, three processes, PostgreSQL, Valkey."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest
from django.db import connection
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from accounts.models import AuditEvent, IssuedToken
from tests.clients.install import HERE, MODULES, node, older_python, run
from tests.flows.consistency.test_consistency import FLIPS, Trials, subject
from tests.flows.mcp.test_real_clients import as_alice
from tests.flows.oauth.test_agents_without_internet import Agent
from tests.flows.oauth.test_python_sdk import Storage, call_twice, provider
from tests.support.access_mutations import by_update
from tests.support.mcp_client import LEGACY, MODERN, McpClient, message_in
from tests.support.production import ProductionSetup, caddy, production
from tests.support.raw_load import BackgroundLoad
from tests.support.run_figures import write_figure
from tests.support.valkey import valkey

pytestmark = pytest.mark.usefixtures("default_users")
CALLS = 6


@pytest.fixture(scope="module")
def front(rows: None, folder: Path, tmp_path_factory: Any) -> Iterator[ProductionSetup]:
    if connection.vendor != "postgresql":
        pytest.skip("several processes need PostgreSQL")
    with valkey() as store, production(folder, store.connection_url, 3) as running:
        yield running


@pytest.fixture
def http(front: ProductionSetup, monkeypatch: Any) -> Iterator[httpx2.Client]:
    """A client that trusts the authority; so do all clients made meanwhile."""
    monkeypatch.setenv("SSL_CERT_FILE", str(front.authority))
    with front.client() as client:
        yield client


@pytest.mark.spec("the documented production setup passes the client tests")
def test_the_sdks_client_signs_in_calls_and_is_revoked(
    front: ProductionSetup, http: httpx2.Client
) -> None:
    """Discovery, registration, sign-in, list, call, refresh, revocation."""
    storage, visits = Storage(), list[str]()
    first, second = asyncio.run(call_twice(front, provider(front, storage, visits)))
    assert first != second and len(visits) == 1
    client = McpClient(front, storage.tokens.access_token, http=http)
    assert "look" in client.tools()
    issued = IssuedToken.objects.filter(client_id=storage.info.client_id)
    issued.revoke(actor="carol", reason="taken away")
    assert [client.post("ping").status_code for _ in range(CALLS)] == [401] * CALLS


def test_every_process_serves_a_session(
    front: ProductionSetup, http: httpx2.Client
) -> None:
    """The proxy sends its messages to any process."""
    decided = [backend.decided() for backend in front.backends]
    client = McpClient(front, front.token("alice"), LEGACY, http=http).open()
    with ThreadPoolExecutor(CALLS) as crowd:
        replies = [crowd.submit(client.post, "tools/list") for _ in range(8 * CALLS)]
        assert {reply.result().status_code for reply in replies} == {200}
    more = [backend.decided() for backend in front.backends]
    assert all(now > before for before, now in zip(decided, more, strict=True))


async def across_a_kill(front: ProductionSetup, token: str) -> list[str]:
    """The texts of calls in one session; a process is killed between two of them."""
    headers = {"Authorization": f"Bearer {token}"}
    texts = []
    async with httpx2.AsyncClient(headers=headers, verify=front.context) as http:
        transport = streamable_http_client(front.mcp_url, http_client=http)
        async with Client(transport, mode="legacy") as client:
            for number in range(3 * CALLS):
                if number == CALLS:
                    await asyncio.to_thread(front.backends[0].stop, signal.SIGKILL)
                called = await client.call_tool("look", {"what": str(number)})
                texts.append(called.content[0].text)  # type: ignore[union-attr]
    return texts


@pytest.mark.node
def test_clients_keep_their_sessions_when_a_process_is_killed(
    front: ProductionSetup, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 1.x and 2.x, TypeScript 1.x; the proxy knows nothing of sessions."""
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(front.authority))
    token, url = front.token("alice"), front.mcp_url
    older = [older_python(), str(HERE / "older.py"), url, token]
    script = [node(), str(HERE / "sdk.mjs"), "1", url, token]
    for command in (older, script):
        as_alice(json.loads(run(command)))
    try:
        texts = asyncio.run(across_a_kill(front, token))
        for command in (older, script):
            as_alice(json.loads(run(command)))
    finally:
        front.backends[0].start()
    assert texts == [f"alice looks at {number}" for number in range(3 * CALLS)]


@contextmanager
def mcp_remote(front: ProductionSetup, token: str) -> Iterator[Callable[[str], Any]]:
    """mcp-remote in a session of 2025-11-25; the function returns a tool's text."""
    command = [node(), str(MODULES / ".bin" / "mcp-remote"), front.mcp_url]
    command += ["--transport", "http-only", "--header", f"Authorization:Bearer {token}"]
    pipe = subprocess.PIPE
    env = {**os.environ, "HOME": str(front.authority.parent)}
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env)
    numbers = count(1)

    def ask(method: str, **params: Any) -> Any:
        message = {"jsonrpc": "2.0", "id": next(numbers), "method": method}
        print(json.dumps({**message, "params": params}), file=process.stdin, flush=True)
        assert process.stdout is not None
        return json.loads(process.stdout.readline())["result"]

    def call(what: str) -> Any:
        result = ask("tools/call", name="look", arguments={"what": what})
        return result["content"][0]["text"]

    with process:
        try:
            hello = {"name": "tests", "version": "1"}
            ask("initialize", protocolVersion=LEGACY, capabilities={}, clientInfo=hello)
            yield call
        finally:
            process.kill()


def inspector(front: ProductionSetup, token: str) -> list[str]:
    """MCP Inspector's command line: call a tool in a session."""
    command = [node(), str(MODULES / ".bin" / "mcp-inspector"), "--cli", front.mcp_url]
    command += ["--transport", "http", "--protocol-era", "legacy", "--format", "json"]
    command += ["--method", "tools/call", "--tool-name", "whoami"]
    return [*command, "--header", f"Authorization: Bearer {token}"]


@pytest.mark.node
def test_programs_keep_their_sessions_when_a_process_is_killed(
    front: ProductionSetup,
    http: httpx2.Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """mcp-remote across the kill; MCP Inspector and Claude Code after it."""
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(front.authority))
    token = front.token("alice")
    claude = Agent(tmp_path)
    claude.env["NODE_EXTRA_CA_CERTS"] = str(front.authority)
    add = ["claude", "mcp", "add", "--transport", "http", "portico", front.mcp_url]
    claude.run(*add, "--header", f"Authorization: Bearer {token}")
    with mcp_remote(front, token) as call:
        first = [call(str(number)) for number in range(CALLS)]
        front.backends[1].stop(signal.SIGKILL)
        try:
            first += [call(str(number)) for number in range(CALLS, 3 * CALLS)]
            assert "alice" in run(inspector(front, token), 90)
            assert "✔ Connected" in claude.run("claude", "mcp", "list")
        finally:
            front.backends[1].start()
    assert first == [f"alice looks at {number}" for number in range(3 * CALLS)]


def test_the_proxy_adds_its_protections(
    front: ProductionSetup, http: httpx2.Client
) -> None:
    """HSTS, secure cookies, private probes, the caller's own address."""
    page = http.get(
        f"{front.url}/accounts/login/", headers={"x-forwarded-for": "6.6.6.6"}
    )
    assert "max-age" in page.headers["strict-transport-security"]
    assert "secure" in page.headers["set-cookie"].lower()
    for path in ("/readyz", "/metrics"):
        assert http.get(f"{front.url}{path}").status_code == 404
    with front.client("127.0.0.2") as elsewhere:
        client = McpClient(front, front.token("alice"), http=elsewhere)
        client.post("ping", extra={"x-forwarded-for": "6.6.6.6"})
    event = AuditEvent.objects.order_by("-pk").first()
    assert event is not None and event.address == "127.0.0.2"


@pytest.mark.parametrize("processes", [3, 2])
def test_no_process_behind_the_proxy_uses_an_old_state(
    front: ProductionSetup, processes: int
) -> None:
    """Any request on any process; a change applies to the next message on each."""
    unused = front.backends[processes:]
    used = front.backends[:processes]
    for backend in unused:
        front.proxy.take_out(backend.port)
    before = [backend.decided() for backend in used]
    with front.settings():
        people = [subject(f"fronted-{number}") for number in range(4)]
        trials = Trials([front], lines=6)
        with BackgroundLoad([front], people, lines=3) as hammer:
            trials.run(by_update(), people, FLIPS // 2)
        trials.close()
    for backend in unused:
        front.proxy.put_back(backend.port)
    stale = trials.stale + hammer.stale
    figures = {"flips": FLIPS // 2 * 2, "messages": trials.count}
    figures |= {"in_passing": hammer.count, "stale": len(stale)}
    write_figure(f"{processes} processes behind nginx", **figures)
    assert not stale
    share = (trials.count + hammer.count) / processes / 4
    for backend, decided in zip(used, before, strict=True):
        assert backend.decided() - decided > share, "one of them was hardly asked"


def test_caddy_as_the_proxy(
    front: ProductionSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK's client works with Compose's Caddyfile as with nginx."""
    with caddy(front) as passed:
        monkeypatch.setenv("SSL_CERT_FILE", str(passed.authority))
        storage, visits = Storage(), list[str]()
        asyncio.run(call_twice(passed, provider(passed, storage, visits)))
        assert len(visits) == 1
        with passed.client() as http:
            client = McpClient(passed, storage.tokens.access_token, http=http)
            client.post("ping", extra={"x-forwarded-for": "6.6.6.6"})
            for path in ("/readyz", "/metrics"):
                assert http.get(f"{passed.url}{path}").status_code == 404
    event = AuditEvent.objects.order_by("-pk").first()
    assert event is not None and event.address == "127.0.0.1"


PAUSE = 0.01
"""Seconds between the calls of one client, so that processes have time to start."""


class CallingClients:
    """Clients that call continuously and never repeat an answered call."""

    def __init__(self, front: ProductionSetup, many: int) -> None:
        self.clients = [
            McpClient(front, front.token("alice"), MODERN, http=front.client())
            for _ in range(many)
        ]
        self.statuses: list[int] = []
        self.over = threading.Event()

    def __enter__(self) -> CallingClients:
        self.pool = ThreadPoolExecutor(len(self.clients))
        self.work = [self.pool.submit(self.call, client) for client in self.clients]
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        for task in self.work:
            task.result()
        self.pool.shutdown()
        for client in self.clients:
            client.http.close()

    def call(self, client: McpClient) -> None:
        while not self.over.wait(PAUSE):
            try:
                answer = client.call("look")
            except httpx2.TransportError:
                # nginx closed the idle connection during its reload before it read the
                # request, so clients may try again (RFC 9112 9.3.1).
                answer = client.call("look")
            self.statuses.append(answer.status_code)
            assert answer.status_code != 200 or message_in(answer)["result"]

    def waits_for(self, many: int) -> None:
        """Wait for `count` more responses."""
        goal = len(self.statuses) + many
        while len(self.statuses) < goal and not all(t.done() for t in self.work):
            self.over.wait(0.01)


def test_a_rolling_restart_fails_no_call(
    front: ProductionSetup, http: httpx2.Client
) -> None:
    """Runs deploy/rolling-restart.sh; each call has one audit event."""
    before = AuditEvent.objects.filter(action="tool.called").count()
    with CallingClients(front, 4) as crowd:
        for backend in front.backends:
            crowd.waits_for(20)
            front.proxy.take_out(backend.port)
            backend.stop(signal.SIGTERM)
            crowd.waits_for(20)
            backend.start()
            front.proxy.put_back(backend.port)
        crowd.waits_for(20)
    assert set(crowd.statuses) == {200}, crowd.statuses
    after = AuditEvent.objects.filter(action="tool.called").count()
    assert after - before == len(crowd.statuses)


def test_a_killed_process_loses_only_its_own_calls(
    front: ProductionSetup, http: httpx2.Client
) -> None:
    """Its calls get 502 at once; the other process serves the rest."""
    with CallingClients(front, 4) as crowd:
        crowd.waits_for(20)
        front.backends[0].stop(signal.SIGKILL)
        crowd.waits_for(40)
        front.backends[0].start()
        crowd.waits_for(20)
    assert set(crowd.statuses) <= {200, 502}
    assert crowd.statuses.count(502) <= len(crowd.clients)
