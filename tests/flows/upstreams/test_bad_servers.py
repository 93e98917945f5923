"""What a client sees of a server that fails or lies, and other calls meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from accounts.models import AuditEvent
from mcp_bridge.models import Offer, Primitive, UpstreamServer
from tests.support.mcp_client import ERAS, McpClient, message_in
from tests.support.server import Portico
from tests.support.upstream_servers import accepted, serving, upstream_row

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]
JSON, STREAM = b"application/json", b"text/event-stream"
CHUNK = b"x" * 1024 * 1024


async def lifespan(receive: Receive, send: Send) -> None:
    for step in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{step}.complete"})


async def bad_server(scope: Scope, receive: Receive, send: Send) -> None:
    """Speaks 2026-07-28; each tool fails in its own way."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    body = b""
    while True:
        event = await receive()
        body += event.get("body", b"")
        if not event.get("more_body"):
            break
    request = json.loads(body)
    tool = request["params"]["name"]
    kind = STREAM if tool == "cut" else JSON

    async def write(data: bytes, more: bool = True) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": more})

    head = {"type": "http.response.start", "status": 200}
    await send({**head, "headers": [(b"content-type", kind)]})
    if tool == "hang":
        await write(b"{")
        await asyncio.sleep(20)
    elif tool == "cut":
        await write(b": here\n\ndata: {")
        await write(b"", False)
    elif tool == "huge":
        for _ in range(100):
            await write(CHUNK)
        await write(b"", False)
    else:
        content: Any = [{"type": "text", "text": "fine"}]
        result = {
            "resultType": "complete",
            "content": "odd" if tool == "odd" else content,
        }
        answer = {"jsonrpc": "2.0", "id": request["id"], "result": result}
        await write(json.dumps(answer).encode(), False)


CASES = {
    "hang": ("may have run", "may_have_run"),
    "cut": ("may have run", "may_have_run"),
    "huge": ("larger than 32 MiB", "error"),
    "odd": ("invalid result", "error"),
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(bad_server) as running:
        yield running.url


@pytest.fixture
def bad(url: str) -> Iterator[UpstreamServer]:
    row = upstream_row(url, name="bad", call_timeout=2, protocol="2026-07-28")
    for name in (*CASES, "fine", "other"):
        accepted(row, "tool", name)
    yield row
    row.delete()


@pytest.mark.parametrize("era", ERAS)
def test_each_failure_is_clear_and_disturbs_no_other_call(
    server: Portico, bad: UpstreamServer, era: str
) -> None:
    last = AuditEvent.objects.latest("pk").pk

    clients = {
        tool: McpClient(server, server.token("alice"), era).open()
        for tool in (*CASES, "fine")
    }

    def called(tool: str) -> tuple[dict[str, Any], float]:
        alice = clients[tool]
        began = time.monotonic()
        params = {"name": f"bad__{tool}", "arguments": {}}
        answer = message_in(alice.post("tools/call", params))
        return answer["result"], time.monotonic() - began

    with ThreadPoolExecutor(8) as crowd:
        calls = {tool: crowd.submit(called, tool) for tool in CASES}
        times = [called("fine")[1] for _ in range(8)]
        found = {tool: call.result(30)[0] for tool, call in calls.items()}
    assert sorted(times)[4] < 1, times
    for tool, (says, _outcome) in CASES.items():
        assert found[tool]["isError"] and says in found[tool]["content"][0]["text"]
    rows = AuditEvent.objects.filter(pk__gt=last, action="tool.called")
    outcomes = dict(rows.values_list("object", "outcome"))
    expected = {f"tool bad__{tool}": outcome for tool, (_, outcome) in CASES.items()}
    assert outcomes == {**expected, "tool bad__fine": "ok"}


@pytest.mark.parametrize("era", ERAS)
def test_a_definition_that_changed_after_it_was_accepted_is_not_called(
    server: Portico, bad: UpstreamServer, era: str
) -> None:
    row = Primitive.objects.get(name="bad__other")
    shown = {
        **(row.accepted or {}),
        "inputSchema": {"type": "object", "required": ["x"]},
    }
    offer = Offer("tool", row.name, "", "", (), False, "f" * 64, shown, "other")
    kept = [
        replace(
            offer,
            name=r.name,
            definition=r.definition,
            shown=r.offered or {},
            upstream_name=r.upstream_name,
        )
        for r in Primitive.objects.filter(upstream=bad).exclude(pk=row.pk)
    ]
    Primitive.objects.sync([offer, *kept], bad)
    alice = McpClient(server, server.token("alice"), era).open()
    tools = message_in(alice.post("tools/list"))["result"]["tools"]
    (listed,) = [tool for tool in tools if tool["name"] == "bad__other"]
    assert "required" not in listed["inputSchema"], "as it was accepted"
    result = message_in(alice.call("bad__other"))["result"]
    assert result["isError"] and "changed" in result["content"][0]["text"]
    event = AuditEvent.objects.latest("pk")
    assert (event.object, event.reason) == ("tool bad__other", "definition_changed")
