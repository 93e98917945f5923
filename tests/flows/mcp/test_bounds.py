"""Open sessions, streams and calls of one user do not limit others."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx2
import pytest

from mcp_bridge.models import ClientSession
from tests.flows.mcp.test_routing import listening
from tests.flows.mcp.test_slow_messages import head, message, partial_call
from tests.support.mcp_client import ERAS, HTTP, LEGACY, McpClient, mcp_client
from tests.support.raw_load import SERVED, RawConnection
from tests.support.server import Portico, running_server

pytestmark = [pytest.mark.usefixtures("default_users"), pytest.mark.once]
POST = partial(httpx2.post, timeout=30, verify=False)
"""Each on a new connection; a TLS context would take 0.05 s."""
METRICS = "a token for the metrics page"
SMALL = {
    "MAX_SESSIONS_PER_USER": "3",
    "MAX_SESSIONS": "5",
    "SESSION_IDLE": "2",
    "MAX_STREAMS_PER_USER": "2",
    "MAX_STREAMS": "3",
    "MAX_CALLS_PER_USER": "4",
    "MAX_CALLS": "6",
    "MAX_BODIES_PER_USER": "200000",
    "MAX_BODY_SIZE": "100000",
    "METRICS_TOKEN": METRICS,
}


@pytest.fixture(scope="module")
def small_server(rows: None, folder: Path) -> Iterator[Portico]:
    """A server with low limits."""
    with running_server(folder, **SMALL) as running:
        yield running


@pytest.fixture
def empty_server(small_server: Portico) -> Portico:
    """The same server without the sessions of earlier tests, also at other servers."""
    ClientSession.objects.all().delete()
    end = time.monotonic() + 30
    while metric(small_server, "portico_sessions_open "):
        assert time.monotonic() < end
        time.sleep(0.1)
    return small_server


def metric(server: Portico, mark: str) -> float:
    """A value of the metrics page, 0 if it is missing."""
    headers = {"authorization": f"Bearer {METRICS}"}
    page = HTTP.get(f"{server.url}/metrics", headers=headers).text
    return float(page.partition(f"\n{mark}")[2].split("\n")[0] or 0)


def session_exists(client: McpClient) -> bool:
    """Whether a session still exists."""
    return client.post("tools/list").status_code == 200


def refused_count(server: Portico, what: str) -> float:
    return metric(server, f'portico_over_bound_total{{what="{what}"}} ')


def test_one_session_too_many_ends_the_least_recently_used(
    empty_server: Portico,
) -> None:
    """It ends a session of the same user only."""
    before = refused_count(empty_server, "sessions")
    bob = mcp_client(empty_server, "bob", LEGACY)
    first, second, third = (mcp_client(empty_server, "alice", LEGACY) for _ in range(3))
    assert all(session_exists(client) for client in (bob, second, third, first))
    fourth = mcp_client(empty_server, "alice", LEGACY)
    assert not session_exists(second) and second.post("tools/list").status_code == 404
    assert all(session_exists(client) for client in (bob, first, third, fourth))
    assert refused_count(empty_server, "sessions") == before + 1


def test_at_the_total_limit_the_user_with_most_sessions_loses_one(
    empty_server: Portico,
) -> None:
    """A new user is never refused because of others."""
    alice = [mcp_client(empty_server, "alice", LEGACY) for _ in range(3)]
    bob = [mcp_client(empty_server, "bob", LEGACY) for _ in range(2)]
    carol = mcp_client(empty_server, "carol", LEGACY)
    assert session_exists(carol) and all(session_exists(client) for client in bob)
    assert [session_exists(client) for client in alice] == [False, True, True]


def test_a_request_without_a_session_ends_none(empty_server: Portico) -> None:
    alice = [mcp_client(empty_server, "alice", LEGACY) for _ in range(3)]
    for _ in range(3):
        assert (
            McpClient(empty_server, alice[0].token, LEGACY)
            .post("tools/list")
            .status_code
            == 400
        )
    assert all(session_exists(client) for client in alice)


def test_an_idle_session_ends_unless_it_has_a_stream(empty_server: Portico) -> None:
    """MCP 2025-11-25: 404, and the client opens another session."""
    idle, listens = (
        mcp_client(empty_server, "alice", LEGACY),
        mcp_client(empty_server, "bob", LEGACY),
    )
    method, options = listening(empty_server, listens)
    with HTTP.stream(method, empty_server.mcp_url, **options) as stream:  # type: ignore[arg-type]
        assert stream.status_code == 200
        time.sleep(3)
        assert session_exists(listens)
    assert idle.post("tools/list").status_code == 404


def test_a_flood_of_sessions_does_not_affect_others(server: Portico) -> None:
    """Tested with the default limits."""
    bob = mcp_client(server, "bob", LEGACY)
    token = server.token("alice")
    for _ in range(150):
        assert (
            McpClient(server, token, LEGACY)
            .post(
                "initialize",
                {
                    "protocolVersion": LEGACY,
                    "capabilities": {},
                    "clientInfo": {"name": "flood", "version": "1"},
                },
            )
            .status_code
            == 200
        )
    assert session_exists(bob)


def open_stream(
    server: Portico, client: McpClient, stack: ExitStack
) -> httpx2.Response:
    """Open one more stream of a client."""
    method, options = listening(server, client)
    stream = HTTP.stream(method, server.mcp_url, **options)  # type: ignore[arg-type]
    return stack.enter_context(stream)


@pytest.mark.spec("RFC 6585 4")
@pytest.mark.parametrize("era", ERAS)
def test_one_stream_too_many_is_429(empty_server: Portico, era: str) -> None:
    """Open streams continue, others may open streams, and a closed one makes room."""
    before = refused_count(empty_server, "streams")
    alice = [mcp_client(empty_server, "alice", era) for _ in range(3)]
    bob = mcp_client(empty_server, "bob", era)
    with ExitStack() as stack:
        first = open_stream(empty_server, alice[0], stack)
        assert (
            first.status_code
            == open_stream(empty_server, alice[1], stack).status_code
            == 200
        )
        refused = open_stream(empty_server, alice[2], stack)
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
        assert open_stream(empty_server, bob, stack).status_code == 200
        full = open_stream(empty_server, mcp_client(empty_server, "carol", era), stack)
        assert full.status_code == 503 and int(full.headers["retry-after"]) > 0
        assert alice[0].text("look") == "alice looks at shelf"
    assert refused_count(empty_server, "streams") == before + 2
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with ExitStack() as stack:
            if open_stream(empty_server, alice[2], stack).status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError("no room though the others have ended")


def post(server: Portico, token: str, seconds: float) -> httpx2.Response:
    """A call that takes `seconds`, on a new connection."""
    client = McpClient(server, token)
    headers, body = message(client, "ponder", {"seconds": seconds})
    return POST(server.mcp_url, content=body, headers=headers)


@pytest.mark.spec("RFC 6585 4")
def test_one_call_too_many_is_429(small_server: Portico) -> None:
    """Calls count per user, across tokens."""
    tokens = [small_server.token("alice") for _ in range(2)]
    with ThreadPoolExecutor(8) as crowd:
        busy = [crowd.submit(post, small_server, tokens[n % 2], 1.5) for n in range(4)]
        time.sleep(0.7)
        refused = post(small_server, tokens[0], 0)
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        assert refused.json()["error"] == "too_many_requests"
        others = [
            crowd.submit(post, small_server, small_server.token("bob"), 0.5)
            for _ in range(2)
        ]
        assert {call.result().status_code for call in others} == {200}
        assert {call.result().status_code for call in busy} == {200}
    assert post(small_server, tokens[0], 0).status_code == 200


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_waiting_bodies_count_as_calls(small_server: Portico, framing: str) -> None:
    """A request gives its place back, however it ends."""
    client = mcp_client(small_server, "alice")
    for _ in range(2):
        calls = [partial_call(client, framing) for _ in range(4)]
        time.sleep(0.3)
        assert client.call("look").status_code == 429
        assert mcp_client(small_server, "bob").post("tools/list").status_code == 200
        for number, (line, rest) in enumerate(calls):
            if number % 2:
                line.send(rest)
                assert line.answer() == SERVED
            line.close()
        end = time.monotonic() + 30
        while client.call("look").status_code != 200:
            assert time.monotonic() < end


def test_the_bytes_of_bodies_are_bounded(small_server: Portico) -> None:
    """The limit covers bodies in progress, not bytes in total."""
    client = mcp_client(small_server, "alice")
    headers, body = message(client, "look", {"what": "x" * 90_000})
    headers["content-length"] = str(len(body))
    lines = []
    for _ in range(3):
        line = RawConnection(small_server)
        line.send(head(headers) + body[:80_000])
        lines.append(line)
        time.sleep(0.2)
    assert "429" in lines[2].answer()
    for line in lines[:2]:
        line.send(body[80_000:])
        assert line.answer() == SERVED
    for line in lines:
        line.close()
    for _ in range(5):
        assert client.call("look", what="x" * 90_000).status_code == 200


def test_slow_tools_of_one_user_leave_threads_for_others(server: Portico) -> None:
    """Synchronous tools use a small thread pool."""
    token = server.token("alice")

    def ground(_number: int) -> int:
        client = McpClient(server, token)
        headers, body = message(client, "grind", {"seconds": 1.0})
        answer = POST(server.mcp_url, content=body, headers=headers)
        return answer.status_code

    bob = mcp_client(server, "bob")
    with ThreadPoolExecutor(60) as crowd:
        busy = [crowd.submit(ground, number) for number in range(60)]
        time.sleep(1.0)
        begun_at = time.monotonic()
        assert "bob" in bob.text("whoami")
        assert mcp_client(server, "carol").text("count_users").isdigit()
        assert time.monotonic() - begun_at < 1.5
        assert {call.result() for call in busy} == {200}


def test_abandoned_calls_keep_counting_as_threads(server: Portico) -> None:
    """The thread of an abandoned call still counts for its user."""
    client = McpClient(server, server.token("alice"))
    headers, body = message(client, "grind", {"seconds": 4})
    headers["content-length"] = str(len(body))
    left: list[socket.socket] = []
    for _ in range(50):
        line = server.connected()
        line.sendall(head(headers) + body)
        left.append(line)
    time.sleep(0.5)
    for line in left:
        line.close()
    time.sleep(1.5)
    threads = Path(f"/proc/{server.process.pid}/task")
    late = len(list(threads.iterdir()))
    assert late < 45, late
    assert mcp_client(server, "carol").text("count_users").isdigit()
