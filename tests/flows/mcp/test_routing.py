"""The endpoint's paths, scope types, CORS, metadata, outages and workers."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest

from accounts.models import IssuedToken
from mcp_bridge.models import Primitive
from tests.support.mcp_client import ERAS, HTTP, LEGACY, McpClient, mcp_client
from tests.support.server import Portico

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]
PRM = "/.well-known/oauth-protected-resource"


@pytest.mark.parametrize("path", ["/mcp", "/mcp/"])
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.spec("no redirect between /mcp and /mcp/")
def test_mcp_answers_with_and_without_slash(
    server: Portico, path: str, era: str
) -> None:
    client = McpClient(server, server.token("alice"), era)
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}}
    headers = client.headers("ping", {})
    response = HTTP.post(f"{server.url}{path}", json=body, headers=headers)
    assert response.status_code in (200, 400, 404)
    bare = HTTP.post(f"{server.url}{path}", json=body)
    assert bare.status_code == 401


@pytest.mark.spec("RFC 9728 3.3: resource identical")
@pytest.mark.spec("RFC 9728 3")
@pytest.mark.parametrize("path", [PRM, f"{PRM}/mcp"])
def test_protected_resource_metadata_is_at_both_places(
    server: Portico, path: str
) -> None:
    """RFC 9728 3.1, 3.3; MCP DISC."""
    headers = {"origin": "https://any.example", "mcp-protocol-version": "2026-07-28"}
    response = HTTP.get(f"{server.url}{path}", headers=headers)
    found = response.json()
    assert found["resource"] == server.mcp_url
    assert found["authorization_servers"] == [server.url]
    assert found["scopes_supported"] == ["mcp"]
    assert found["bearer_methods_supported"] == ["header"]
    assert response.headers["access-control-allow-origin"] == "*"


@pytest.mark.spec("OAuth 2.1 3.2 CORS")
def test_browser_clients_may_send_preflights(server: Portico) -> None:
    """The preflight is answered and the challenge readable; the admin has no CORS."""
    ask = {
        "origin": "http://localhost:6274",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, mcp-param-region",
    }
    answer = HTTP.options(server.mcp_url, headers=ask)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ask["origin"]
    assert "mcp-param-region" in answer.headers["access-control-allow-headers"]
    refused = HTTP.post(server.mcp_url, json={}, headers={"origin": ask["origin"]})
    exposed = refused.headers["access-control-expose-headers"].lower()
    assert "www-authenticate" in exposed and "mcp-session-id" in exposed
    evil = HTTP.options(server.mcp_url, headers={**ask, "origin": "https://evil.ex"})
    assert evil.status_code == 403
    admin = HTTP.get(f"{server.url}/admin/login/", headers={"origin": ask["origin"]})
    assert "access-control-allow-origin" not in admin.headers


@pytest.mark.parametrize("path", ["/mcp", "/", "/admin/"])
def test_a_websocket_is_refused(server: Portico, path: str) -> None:
    """A WebSocket that reached Django would raise."""
    hello = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), 5) as peer:
        peer.sendall(hello.encode())
        status = peer.recv(200).split(b" ")[1]
    assert status != b"101" and not status.startswith(b"5")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "HEAD", "TRACE"])
def test_other_http_methods_are_405(server: Portico, method: str) -> None:
    """MCP HTTP: POST (and GET, DELETE of older revisions)."""
    client = McpClient(server, server.token("alice"))
    headers = client.headers("ping", {})
    assert HTTP.request(method, server.mcp_url, headers=headers).status_code == 405


def test_requests_have_a_generated_id_or_a_valid_one(server: Portico) -> None:
    """The answer and the audit have the same id."""
    sane = {"x-request-id": "abc-123_456"}
    response = HTTP.get(f"{server.url}/healthz", headers=sane)
    assert response.headers["x-request-id"] == "abc-123_456"
    odd = {"x-request-id": "x" * 200}
    request_id = HTTP.get(f"{server.url}/healthz", headers=odd).headers["x-request-id"]
    assert request_id != odd["x-request-id"] and len(request_id) == 32


def test_health_needs_no_database(server: Portico) -> None:
    assert HTTP.get(f"{server.url}/healthz").json() == {"status": "ok"}


@pytest.mark.spec("2025-11-25 BP Session Hijacking: bound to the user")
def test_sessions_belong_to_their_owner(server: Portico) -> None:
    """2025-11-25 BP, Session Hijacking."""
    owner = mcp_client(server, "alice", LEGACY)
    assert owner.session
    thief = McpClient(server, server.token("carol"), LEGACY, owner.session)
    assert thief.post("tools/list").status_code == 404
    assert owner.post("tools/list").status_code == 200
    gone = HTTP.delete(server.mcp_url, headers=owner.headers("", {}))
    assert gone.status_code == 200
    assert owner.post("tools/list").status_code == 404


def listening(server: Portico, client: McpClient) -> tuple[str, dict[str, object]]:
    """Method and options of the request that opens a stream in this revision."""
    if client.era == LEGACY:
        return "GET", {"headers": client.headers("", {})}
    meta = "io.modelcontextprotocol/"
    params = {
        "notifications": {
            "toolsListChanged": True,
            "resourceSubscriptions": ["shop://open", "shop://vault"],
        },
        "_meta": {
            f"{meta}protocolVersion": client.era,
            f"{meta}clientCapabilities": {},
        },
    }
    method = "subscriptions/listen"
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return "POST", {"json": body, "headers": client.headers(method, params)}


@pytest.mark.spec("an open stream ends when access ends")
@pytest.mark.parametrize("era", ERAS)
def test_an_open_stream_ends_soon_after_revocation(server: Portico, era: str) -> None:
    pair = server.issued("alice")
    client = McpClient(server, pair.access, era).open()
    method, options = listening(server, client)
    with HTTP.stream(method, server.mcp_url, **options) as stream:  # type: ignore[arg-type]
        assert stream.status_code == 200
        IssuedToken.objects.filter(pk=pair.row.pk).revoke(actor=None, reason="test")
        for _ in stream.iter_bytes():
            pass


def test_subscribers_get_only_events_they_may_read(server: Portico) -> None:
    """MCP SUB: the SDK does not check each subscriber; Portico checks at delivery."""
    alice, carol = mcp_client(server, "alice"), mcp_client(server, "carol")
    method, options = listening(server, alice)
    heard: list[str] = []
    with HTTP.stream(method, server.mcp_url, **options) as stream:  # type: ignore[arg-type]
        lines = stream.iter_lines()
        for line in lines:
            if "acknowledged" in line:
                break
        carol.call("touch", uri="shop://vault")
        carol.call("touch", uri="shop://open")
        end = monotonic() + 30
        for line in lines:
            heard.append(line)
            assert monotonic() < end, heard
            if "shop://open" in line:
                break
    assert not any("shop://vault" in line for line in heard)


@pytest.mark.parametrize("era", ERAS)
def test_progress_reaches_the_client(server: Portico, era: str) -> None:
    """MCP utilities/progress: the response streams if the request asks for progress."""
    client = mcp_client(server, "alice", era)
    params = {"name": "slow", "arguments": {}, "_meta": {"progressToken": "p1"}}
    answer = client.post("tools/call", params)
    assert answer.text.count("notifications/progress") == 3
    assert "done" in answer.text


@pytest.mark.parametrize("era", ERAS)
def test_several_workers_decide_equally(workers: Portico, era: str) -> None:
    """Any worker answers any request; the older revision is stateless."""
    clients = [mcp_client(workers, "alice", era) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda c: c.text("look"), clients * 5))
    assert set(texts) == {"alice looks at shelf"}
    Primitive.objects.filter(name="look").update(enabled=False)
    try:
        with ThreadPoolExecutor(4) as pool:
            after = list(pool.map(lambda c: c.allowed("look"), clients * 5))
        assert not any(after)
    finally:
        Primitive.objects.filter(name="look").update(enabled=True)


def test_other_scope_types_are_ignored() -> None:
    """Pure ASGI middleware passes other scope types on."""
    from mcp_bridge.application import Application

    router = Application.__new__(Application)
    asyncio.run(router({"type": "other"}, None, None))  # type: ignore[arg-type]


def test_nothing_is_logged_per_request(server: Portico) -> None:
    """The audit log covers requests; uvicorn runs with `--no-access-log`."""
    client = mcp_client(server, "alice")
    assert client.call("look").status_code == 200
    assert "POST /mcp" not in server.log.read_text()
