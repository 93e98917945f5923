"""Endless heads, chunk sizes and trailers are refused early."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.support.mcp_client import HTTP, McpClient, mcp_client
from tests.support.server import Portico, running_server

pytestmark = [pytest.mark.usefixtures("default_users"), pytest.mark.once]
HOST = b"Host: 127.0.0.1\r\n"
GET = b"GET /healthz HTTP/1.1\r\n" + HOST
CHUNKED = (
    b"POST /oauth/token HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
)
MEGABYTE = b"a" * 2**20
ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "request line": (b"GET /", b"a"),
    "query": (b"GET /admin/?q=", b"a"),
    "method": (b"G", b"ET"),
    "one header": (GET + b"X-A: ", b"a"),
    "a header's name": (GET + b"X-", b"a"),
    "blanks of a header": (GET + b"X-A:", b" "),
    "many headers": (GET, b"X-A: b\r\n"),
    "many empty headers": (GET, b"a:\r\n"),
    "headers of different sizes": (GET, b"X-A: " + b"b" * 5000 + b"\r\n"),
    "chunk extension": (CHUNKED + b"1;x=", b"a"),
    "chunk size": (CHUNKED, b"0"),
    "one trailer": (CHUNKED + b"1\r\na\r\n0\r\nX-A: ", b"a"),
    "many trailers": (CHUNKED + b"1\r\na\r\n0\r\n", b"X-A: b\r\n"),
}
"""The first bytes, and the bytes repeated after them."""


def received_bytes(line: socket.socket, *, waits: bool = False) -> bytes:
    """All bytes until the server closes; `waits` keeps the sending side open."""
    found = b""
    try:
        if not waits:
            line.shutdown(socket.SHUT_WR)
        while chunk := line.recv(65536):
            found += chunk
    except OSError:
        pass
    return found


def statuses(found: bytes) -> list[bytes]:
    """The status codes of the responses, in order."""
    return [part[:3] for part in found.split(b"HTTP/1.1 ")[1:]]


def was_accepted(line: socket.socket, data: bytes) -> bool:
    """Whether the server accepted all of it."""
    try:
        line.sendall(data)
    except (ConnectionResetError, BrokenPipeError):
        return False
    return True


@pytest.mark.spec("RFC 6585 5")
@pytest.mark.parametrize("what", ENDLESS)
def test_an_endless_head_is_431(server: Portico, what: str) -> None:
    """Covers a head sent at once and one sent slowly."""
    first, more = ENDLESS[what]
    rest = more * (200_000 // len(more))
    status = b"400" if what == "method" else b"431"
    for pieces in (1, 200):
        size = len(rest) // pieces
        with server.connected() as line:
            line.sendall(first)
            for start in range(0, len(rest), size):
                if not was_accepted(line, rest[start : start + size]):
                    break
            found = received_bytes(line)
        assert statuses(found) == [status], found[:200]
        assert b"connection: close" in found and b'"invalid_request"' in found
    assert HTTP.get(f"{server.url}/healthz").status_code == 200


def test_the_connection_closes_though_the_client_stays(server: Portico) -> None:
    """The close is delayed: a reset could cost the client the response."""
    with server.connected() as line:
        line.sendall(b"GET /" + MEGABYTE)
        started = time.monotonic()
        assert statuses(received_bytes(line, waits=True)) == [b"431"]
        assert time.monotonic() - started < 8


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz?" + b"a" * 60_000 + b" HTTP/1.1\r\n" + HOST,
        GET + b"X-A: " + b"a" * 60_000 + b"\r\n",
        GET + b"X-A: b\r\n" * 150,
        GET + b"".join(b"X-%d: %s\r\n" % (n, b"b" * 500) for n in range(100)),
    ],
    ids=["request line", "one header", "many headers", "many larger ones"],
)
def test_large_requests_within_the_limits_are_served(
    server: Portico, head: bytes
) -> None:
    """Twice on one connection, in one piece and in many."""
    whole = head + b"\r\n"
    with server.connected() as line:
        line.sendall(whole)
        for start in range(0, len(whole), 1000):
            line.sendall(whole[start : start + 1000])
        found = b""
        while found.count(b'{"status": "ok"}') < 2:
            more = line.recv(65536)
            found += more
            assert more and not {b"400", b"431"} & set(statuses(found)), found[:200]


def test_bodies_in_small_chunks_are_served(server: Portico) -> None:
    """The bytes between chunks count per chunk, not in total."""
    client = mcp_client(server, "alice")
    body = b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {' + b" " * 30_000
    pieces = [bytes([byte]) for byte in body + b"}}"]
    headers = {**client.headers("ping", {}), "content-type": "application/json"}
    answer = HTTP.post(server.mcp_url, content=iter(pieces), headers=headers)
    assert answer.status_code != 431 and "jsonrpc" in answer.text


def test_an_endless_second_request_keeps_the_first_response(
    server: Portico,
) -> None:
    """RFC 9112 9.3.2: responses keep their order; then the connection ends."""
    client = mcp_client(server, "alice")
    headers = client.headers("tools/call", {"name": "ponder"})
    headers |= {"host": server.host, "content-type": "application/json"}
    meta = "io.modelcontextprotocol/"
    body = (
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"ponder",'
        f'"arguments":{{"seconds":0.5}},"_meta":{{"{meta}protocolVersion":"2026-07-28",'
        f'"{meta}clientCapabilities":{{}}}}}}}}'
    )
    headers["content-length"] = str(len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    first = f"POST /mcp HTTP/1.1\r\n{lines}\r\n{body}".encode()
    for second in (GET + b"X-A: " + MEGABYTE, b"NOT HTTP\r\n\r\n" * 10):
        with server.connected() as line:
            line.sendall(first)
            was_accepted(line, second)
            found = received_bytes(line, waits=True)
        assert statuses(found) == [b"200"] and b"pondered" in found, found[:300]


def test_a_flood_of_requests_on_one_connection_is_not_queued(server: Portico) -> None:
    """Requests within the limit are answered, then the connection ends."""
    with server.connected() as line:
        was_accepted(line, (GET + b"\r\n") * 20_000)
        found = received_bytes(line, waits=True)
    assert 1 <= len(statuses(found)) < 20_000
    assert set(statuses(found)) == {b"200"}


@pytest.mark.spec("RFC 9110 6.5.1: trailers are no headers")
def test_a_trailer_is_not_a_header(server: Portico) -> None:
    """A proxy that checks headers passes trailers on."""
    token = server.token("alice")
    with server.connected() as line:
        line.sendall(
            b"POST /mcp HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
            b"2\r\n{}\r\n0\r\nAuthorization: Bearer " + token.encode() + b"\r\n\r\n"
        )
        line.settimeout(10)
        found = line.recv(65536)
    assert statuses(found) == [b"401"] and b"invalid_token" not in found


def memory(server: Portico) -> int:
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) * 1024


@contextmanager
def probe_seconds(server: Portico) -> Iterator[list[float]]:
    """Seconds that other requests take meanwhile."""
    waits: list[float] = []
    first, done = threading.Event(), threading.Event()

    def probe() -> None:
        with httpx2.Client(timeout=60, verify=False) as client:
            while not done.is_set():
                started = time.monotonic()
                client.get(f"{server.url}/healthz").raise_for_status()
                waits.append(time.monotonic() - started)
                first.set()

    prober = threading.Thread(target=probe)
    prober.start()
    try:
        assert first.wait(30)
        waits.clear()
        yield waits
    finally:
        done.set()
        prober.join()


@pytest.mark.parametrize(
    ("first", "more"),
    [(b"GET /", MEGABYTE), (GET, b"X-A: bcdefghi\r\n" * 70_000)],
    ids=["request line", "headers"],
)
def test_one_connection_does_not_hold_up_the_others(
    server: Portico, first: bytes, more: bytes
) -> None:
    """100 MB are sent and almost none of them stored."""
    HTTP.get(f"{server.url}/healthz")
    before = memory(server)
    with probe_seconds(server) as waits, server.connected() as line:
        started = time.monotonic()
        line.sendall(first)
        for _ in range(100):
            if not was_accepted(line, more):
                break
        took = time.monotonic() - started
        assert statuses(received_bytes(line)) == [b"431"]
    assert took < 5 and max(waits) < 1.5, (took, max(waits))
    assert memory(server) - before < 30_000_000


@pytest.mark.parametrize(
    "after",
    [b"\r\n", b"\r\n" * 50_000],
    ids=["a line", "many lines"],
)
def test_blank_lines_do_not_keep_a_connection(
    hasty_heads: Portico, after: bytes
) -> None:
    """An idle keep-alive connection is closed even if blank lines arrive."""
    with hasty_heads.connected() as line:
        line.sendall(GET + b"\r\n")
        assert line.recv(15) == b"HTTP/1.1 200 OK"
        was_accepted(line, after)
        started = time.monotonic()
        received_bytes(line, waits=True)
        assert time.monotonic() - started < 5


def test_a_body_longer_than_its_response_is_cut_off(hasty_heads: Portico) -> None:
    """The rest of a body is read for a limited time after an early response."""
    client = McpClient(hasty_heads, "e30.e30.e30")
    lines = "".join(f"{n}: {v}\r\n" for n, v in client.headers("ping", {}).items())
    head = f"POST /mcp HTTP/1.1\r\nhost: {hasty_heads.host}\r\n{lines}"
    with hasty_heads.connected() as line:
        line.sendall(f"{head}content-length: 1000000\r\n\r\n".encode())
        assert line.recv(12) == b"HTTP/1.1 401"
        started = time.monotonic()
        while was_accepted(line, b"x") and time.monotonic() - started < 8:
            time.sleep(0.1)
        assert time.monotonic() - started < 5


@pytest.fixture(scope="module")
def hasty_heads(rows: None, folder: Path) -> Iterator[Portico]:
    with running_server(folder, HEAD_TIMEOUT="1") as running:
        yield running


UPGRADE = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
BODIES = {
    "length": (b"Content-Length: %d\r\n" % len(GET + b"\r\n"), GET + b"\r\n"),
    "chunked": (
        b"Transfer-Encoding: chunked\r\n",
        b"%x\r\n%s\r\n0\r\n\r\n" % (len(GET + b"\r\n"), GET + b"\r\n"),
    ),
    "none": (b"", GET + b"\r\n"),
}


@pytest.mark.parametrize(
    ("what", "protocol"),
    [
        ("length", b"h2c"),
        ("chunked", b"websocket"),
        ("none", b"websocket"),
        ("none", b"anything"),
    ],
)
def test_bytes_after_an_upgrade_are_not_a_request(
    server: Portico, what: str, protocol: bytes
) -> None:
    """A proxy that passes Upgrade must not get two responses for one request."""
    head, body = BODIES[what]
    with server.connected() as line:
        upgrade = UPGRADE.replace(b"h2c", protocol)
        line.sendall(GET + upgrade + head + b"\r\n")
        time.sleep(0.2)
        was_accepted(line, body)
        found = received_bytes(line, waits=True)
    assert statuses(found) == [b"200"]
    assert b"connection: close" in found
