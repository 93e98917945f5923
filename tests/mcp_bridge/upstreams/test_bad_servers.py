"""Servers that fail, lie or never end: each gives one problem with its outcome."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from mcp.shared.exceptions import MCPError

from mcp_bridge.access.catalogue import Upstream
from mcp_bridge.models import UpstreamServer
from mcp_bridge.upstreams import discovery, http_client
from mcp_bridge.upstreams.definitions import offer_of
from mcp_bridge.upstreams.discovery import explore
from mcp_bridge.upstreams.exchange import request
from mcp_bridge.upstreams.http_client import close_clients
from mcp_bridge.upstreams.problems import Outcome, UpstreamProblem

Answer = Callable[[asyncio.StreamWriter, dict[str, Any]], Awaitable[None]]
"""Writes the answer to one request, whose decoded body it gets."""


def http(
    status: int, body: bytes, kind: str = "application/json", **headers: str
) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


def sent(content: bytes, then_wait: bool = False) -> Answer:
    """Sends these bytes; then closes, or sends nothing more."""

    async def answer(writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        writer.write(content.replace(b'"ID"', b"%4d" % body["id"]))
        await writer.drain()
        if then_wait:
            await asyncio.sleep(30)

    return answer


STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
)
EVENT = b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{}}\n\n'
RESULT = b'{"jsonrpc":"2.0","id":"ID","result":{"content":[]}}'


def run(answer: Answer, seconds: float = 5.0, **values: Any) -> tuple[Any, list[str]]:
    """(result or exception of one call, methods that the server received)."""
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = int(head.partition(b"content-length:")[2].split()[0])
            body = json.loads(await reader.readexactly(size))
            seen.append(body["method"])
            await answer(writer, body)
        finally:
            writer.close()

    async def call() -> Any:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/{uuid4().hex}"
        options = {"protocol": "2026-07-28", **values}
        row = UpstreamServer(name="bad", url=url, **options)
        upstream = Upstream(9, "bad", True, row, None)
        try:
            params = {"name": "add", "arguments": {}}
            return await request(upstream, "tools/call", params, seconds=seconds)
        except (UpstreamProblem, MCPError) as problem:
            return problem
        finally:
            await close_clients()
            server.close()

    return asyncio.run(call()), seen


def test_an_ordinary_answer_is_the_result() -> None:
    """Shows that the other tests fail for their own reason."""
    assert run(sent(http(200, RESULT)))[0] == {"content": []}


@pytest.mark.parametrize(
    ("answer", "code", "outcome"),
    [
        (sent(http(401, b"")), "credential", Outcome.REFUSED),
        (sent(http(403, b"no", "text/plain")), "forbidden", Outcome.REFUSED),
        (sent(http(429, b"", Retry_After="7")), "busy", Outcome.REFUSED),
        (sent(http(500, b"oops", "text/html")), "failed", Outcome.ERROR),
        (sent(http(404, b"none", "text/html")), "status", Outcome.ERROR),
        (
            sent(http(307, b"", Location="http://127.0.0.2/mcp")),
            "redirect",
            Outcome.REFUSED,
        ),
        (sent(b""), "broken", Outcome.MAY_HAVE_RUN),
        (sent(STREAM), "broken", Outcome.MAY_HAVE_RUN),
        (sent(STREAM + EVENT + EVENT[:20]), "broken", Outcome.MAY_HAVE_RUN),
        (sent(http(200, RESULT)[:-9]), "broken", Outcome.MAY_HAVE_RUN),
    ],
)
def test_a_failing_server_is_a_problem_with_its_outcome(
    answer: Answer, code: str, outcome: Outcome
) -> None:
    problem, seen = run(answer)
    assert (problem.code, problem.outcome) == (code, outcome)
    assert seen == ["tools/call"]  # never sent again
    assert "bad" in problem.text


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"jsonrpc":"2.0","id":"ID"}',
        b'{"jsonrpc":"2.0","id":"ID","result":7}',
        b'{"jsonrpc":"2.0","id":"ID","error":"no"}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_an_answer_that_is_no_json_rpc_is_a_problem(body: bytes) -> None:
    for content in (http(200, body), STREAM + b"data: " + body + b"\n\n"):
        problem, _seen = run(sent(content))
        assert isinstance(problem, UpstreamProblem | MCPError), problem


@pytest.mark.parametrize("begin", [b"", STREAM, STREAM + EVENT, http(200, RESULT)[:-9]])
def test_a_hanging_server_ends_at_the_timeout(begin: bytes) -> None:
    problem, seen = run(sent(begin, then_wait=True), seconds=0.3)
    assert (problem.code, problem.outcome) == ("timeout", Outcome.MAY_HAVE_RUN)
    assert "may have run" in problem.text
    assert seen == ["tools/call"]


@pytest.mark.parametrize("begin", [b"", STREAM + b"data: ", STREAM + b"data: x\n"])
def test_an_answer_without_end_is_cut(
    monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    monkeypatch.setattr(http_client, "MAX_BODY", 100_000)
    content = begin + b"x" * 300_000 if begin else http(200, b" " * 300_000)
    problem, _seen = run(sent(content))
    assert problem.code == "too_large"


def test_many_small_lines_of_one_event_are_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_client, "MAX_BODY", 100_000)
    problem, _seen = run(sent(STREAM + b"data: 0123456789\n" * 30_000))
    assert problem.code == "too_large"


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_refusal_does_not_mean_an_older_protocol(status: int) -> None:
    problem, seen = run(sent(http(status, b"")), protocol="auto")
    assert isinstance(problem, UpstreamProblem)
    assert seen == ["server/discover"]


def test_a_slow_first_request_does_not_mean_an_older_protocol() -> None:
    problem, seen = run(sent(b"", then_wait=True), seconds=0.3, protocol="auto")
    assert problem.code == "timeout"
    assert seen == ["server/discover"]


def test_a_server_that_changes_the_lists_between_pages_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Endless pages: each has a new cursor."""
    count = 0

    async def answer(writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        nonlocal count
        count += 1
        page = {
            "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}},
            "tools": [{"name": f"t{count}", "inputSchema": {"type": "object"}}],
            "nextCursor": str(count),
        }
        reply = {"jsonrpc": "2.0", "id": body["id"], "result": page}
        writer.write(http(200, json.dumps(reply).encode()))
        await writer.drain()

    async def explored() -> Any:
        async def serve(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = int(head.partition(b"content-length:")[2].split()[0])
            await answer(writer, json.loads(await reader.readexactly(size)))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        row = UpstreamServer(name="bad", url=f"http://127.0.0.1:{port}/mcp")
        try:
            return await explore(Upstream(9, "bad", True, row, None))
        finally:
            await close_clients()
            server.close()

    threads: set[int] = set()

    def check(row: UpstreamServer, kind: str, item: Any) -> Any:
        threads.add(threading.get_ident())
        return offer_of(row, kind, item)

    monkeypatch.setattr(discovery, "offer_of", check)
    seen = asyncio.run(explored())
    assert "more than 100 pages" in seen.truncated
    assert len(seen.offers) == 100 and seen.cut == {"tool"}
    assert threading.get_ident() not in threads  # calls go on meanwhile
