"""Response headers, cookies, large and slow requests, shutdown."""

from __future__ import annotations

import json
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.flows.mcp.test_routing import listening
from tests.support.mcp_client import HTTP, LEGACY, McpClient, mcp_client
from tests.support.server import Portico, running_server
from tests.support.users import PASSWORD

pytestmark = [pytest.mark.usefixtures("default_users"), pytest.mark.once]
HASTY = {
    "BODY_TIMEOUT": "1",
    "HEAD_TIMEOUT": "1",
    "SEND_TIMEOUT": "1",
    "MAX_FORM_SIZE": "20000",
}


@pytest.fixture(scope="module")
def short_timeout_server(rows: None, folder: Path) -> Iterator[Portico]:
    """A server with short timeouts, small forms, and a large file."""
    (folder / "static").mkdir(exist_ok=True)
    (folder / "static" / "large.bin").write_bytes(bytes(16_000_000))
    with running_server(folder, **HASTY) as running:
        yield running


@pytest.fixture(scope="module")
def https_server(rows: None, folder: Path) -> Iterator[Portico]:
    """An https address behind a proxy that ends TLS."""
    settings = {"TRUSTED_PROXIES": "127.0.0.1", "ALLOWED_HOSTS": "127.0.0.1"}
    with running_server(
        folder, ISSUER_URL="https://portico.test", **settings
    ) as running:
        yield running


def test_the_headers_of_a_page(https_server: Portico) -> None:
    """HSTS, Referrer-Policy, Permissions-Policy, COOP; __Host- cookies."""
    told = {"x-forwarded-proto": "https"}
    page = httpx2.get(f"{https_server.url}/accounts/login/", headers=told)
    headers = page.headers
    assert headers["strict-transport-security"].startswith("max-age=31536000")
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"
    assert "camera=()" in headers["permissions-policy"]
    cookie = headers["set-cookie"]
    assert cookie.startswith("__Host-csrf=") and "Domain" not in cookie
    for word in ("Secure", "HttpOnly", "Path=/", "SameSite=Lax"):
        assert word in cookie


@pytest.mark.spec("RFC 9110 15.5.14")
@pytest.mark.parametrize("path", ["/oauth/token", "/api/token/", "/accounts/login/"])
def test_a_large_body_is_413_before_it_is_read(
    short_timeout_server: Portico, path: str
) -> None:
    """By its declared length, or once it exceeds the limit."""
    body = b"a=" + b"x" * 30_000

    def in_pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 5_000):
            yield body[start : start + 5_000]

    kind = {"content-type": "application/x-www-form-urlencoded"}
    for content in (body, in_pieces()):
        answer = httpx2.post(
            f"{short_timeout_server.url}{path}", content=content, headers=kind
        )
        assert answer.status_code == 413, answer.text
        assert answer.json()["error"] == "invalid_request"


@pytest.mark.spec("RFC 9110 15.5.9")
@pytest.mark.parametrize("path", ["/oauth/token", "/accounts/login/", "/mcp"])
def test_a_slow_body_is_408(short_timeout_server: Portico, path: str) -> None:
    """Slow clients; at /mcp only those with a token wait."""
    bearer = f"authorization: Bearer {short_timeout_server.token('alice')}\r\n"
    with socket.create_connection(
        ("127.0.0.1", short_timeout_server.port), timeout=10
    ) as line:
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{bearer}"
        line.sendall(f"{head}content-length: 100\r\n\r\na=".encode())
        started = time.monotonic()
        answer = line.recv(4096)
        assert b" 408 " in answer.split(b"\r\n")[0], answer
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nhost: h\r\nx: "])
def test_a_slow_head_closes_the_connection(
    short_timeout_server: Portico, sent: bytes
) -> None:
    """Slowloris; uvicorn closes an idle keep-alive connection."""
    with socket.create_connection(
        ("127.0.0.1", short_timeout_server.port), timeout=10
    ) as line:
        line.sendall(sent)
        started = time.monotonic()
        assert line.recv(4096) == b""
        assert 0.5 < time.monotonic() - started < 5


def test_a_client_that_does_not_read_is_cut_off(short_timeout_server: Portico) -> None:
    """The server drops its waiting response; others do not wait."""
    request = b"GET /static/large.bin HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(20)
        line.connect(("127.0.0.1", short_timeout_server.port))
        line.sendall(request)
        assert line.recv(15) == b"HTTP/1.1 200 OK"
        assert httpx2.get(f"{short_timeout_server.url}/healthz").status_code == 200
        ended = select.poll()
        ended.register(line, select.POLLRDHUP | select.POLLHUP)
        assert ended.poll(20_000), "it still waits for us to read"


def partial_call(server: Portico, client: McpClient) -> tuple[socket.socket, bytes]:
    """A call whose body arrived in part, and the missing part."""
    meta = "io.modelcontextprotocol/"
    about = {f"{meta}protocolVersion": client.era, f"{meta}clientCapabilities": {}}
    params = {"name": "look", "arguments": {}}
    headers = client.headers("tools/call", params)
    whole = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    body = json.dumps({**whole, "params": {**params, "_meta": about}}).encode()
    line = socket.create_connection(("127.0.0.1", server.port), timeout=15)
    headers |= {"host": "127.0.0.1", "content-type": "application/json"}
    headers["content-length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    line.sendall(f"POST /mcp HTTP/1.1\r\n{head}\r\n".encode() + body[:10])
    return line, body[10:]


def test_shutting_down_ends_streams_and_finishes_calls(
    rows: None, folder: Path
) -> None:
    """Calls finish, streams end, new connections are refused."""
    with running_server(folder, GRACE="20") as server:
        client = mcp_client(server, "alice")
        line, rest = partial_call(server, client)
        method, options = listening(server, client)
        with line, HTTP.stream(method, server.mcp_url, **options) as stream:  # type: ignore[arg-type]
            assert stream.status_code == 200
            started = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            for _ in stream.iter_bytes():
                pass
            assert time.monotonic() - started < 5
            with pytest.raises(httpx2.TransportError):
                httpx2.get(f"{server.url}/healthz", timeout=2)
            line.sendall(rest)
            answer = b""
            while chunk := line.recv(65536):
                answer += chunk
            assert b" 200 " in answer[:20] and b"alice looks" in answer, answer
        server.process.wait(15)
        assert time.monotonic() - started < 15


def test_text_from_outside_stays_on_one_log_line(server: Portico) -> None:
    forged = "x\r\nERROR forged: everything is fine \x1b[31m"
    secret = "portico_pat_" + "s" * 43
    body = {"username": forged, "password": "a very secret password"}
    HTTP.post(f"{server.url}/api/token/", json=body)
    HTTP.post(f"{server.url}/oauth/register", json={"client_name": forged})
    HTTP.get(f"{server.url}/oauth/authorize", params={"client_id": forged})
    HTTP.get(f"{server.url}/nowhere/%0d%0aERROR%20forged")
    HTTP.get(f"{server.url}/accounts/oidc/x/login/callback/", params={"error": forged})
    McpClient(server, secret).post("ping")
    alice = mcp_client(server, "alice", LEGACY)
    alice.call(forged)
    body = {"username": "alice", "password": PASSWORD}
    HTTP.post(f"{server.url}/api/token/", json=body)
    log = server.log.read_text()
    assert "\nERROR forged" not in log and "\x1b[31m" not in log
    for hidden in ("a very secret password", secret, PASSWORD, alice.token):
        assert hidden not in log
