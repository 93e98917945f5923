"""Real clients use server-everything through Portico: list, call, progress, cancel."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from accounts.models import AuditEvent
from tests.clients.install import HERE, MODULES, node, older_python, run
from tests.flows.upstreams.test_real_servers import accept_all, program
from tests.support.ports import free_port
from tests.support.server import Portico
from tests.support.upstream_servers import upstream_row
from tests.support.users import make_user

pytestmark = [pytest.mark.once, pytest.mark.node]
LONG = "tool every__trigger-long-running-operation"


@pytest.fixture(scope="module")
def token(server: Portico, tmp_path_factory: Any) -> Iterator[str]:
    """alice's token, while she may use everything of the server."""
    make_user("alice", "User")
    port = free_port()
    script = "node_modules/@modelcontextprotocol/server-everything/dist/index.js"
    log = tmp_path_factory.mktemp("everything") / "log"
    command = [node(), script, "streamableHttp"]
    with program(command, port, log, PORT=str(port)) as url:
        row = upstream_row(url, name="every")
        accept_all(row)
        yield server.token("alice")
        row.delete()


def outcomes(last: int) -> list[str]:
    """How the calls of the long tool ended, once three are recorded."""
    rows = AuditEvent.objects.filter(pk__gt=last, object=LONG).order_by("pk")
    end = time.monotonic() + 5
    while rows.count() < 3 and time.monotonic() < end:
        time.sleep(0.1)
    return list(rows.values_list("outcome", flat=True))


@pytest.mark.parametrize("who", ["TypeScript 1", "TypeScript 2", "Python 1"])
def test_a_client_lists_calls_gets_progress_and_cancels(
    server: Portico, token: str, who: str
) -> None:
    last = AuditEvent.objects.latest("pk").pk
    script = [node(), "upstream.mjs", who[-1]]
    if who == "Python 1":
        script = [older_python(), str(HERE / "older_upstream.py")]
    found = json.loads(run([*script, server.mcp_url, token]))
    assert "every__echo" in found["tools"] and "hi" in found["echo"]
    assert found["progress"] == [1, 2, 3] and found["cancelled"] == [True, True]
    assert outcomes(last) == ["ok", "cancelled", "cancelled"]


def test_the_inspector_lists_and_calls(server: Portico, token: str) -> None:
    command = [node(), str(MODULES / ".bin" / "mcp-inspector"), "--cli", server.mcp_url]
    command += ["--transport", "http", "--header", f"Authorization: Bearer {token}"]
    listed = run([*command, "--method", "tools/list"])
    assert "every__echo" in listed
    call = ["--method", "tools/call", "--tool-name", "every__echo"]
    assert "Echo: hi" in run([*command, *call, "--tool-arg", "message=hi"])
