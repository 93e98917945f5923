"""The MCP protocol's rules for the endpoint, in both revisions."""

from __future__ import annotations

import base64
from itertools import product
from typing import Any

import pytest

from accounts.models import IssuedToken
from tests.support.mcp_client import (
    ERAS,
    HTTP,
    LEGACY,
    META,
    MODERN,
    McpClient,
    mcp_client,
    message_in,
)
from tests.support.server import Portico

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]
LOOK: dict[str, Any] = {"name": "look", "arguments": {}}


@pytest.mark.spec("MCP AUTH Token Requirements: never in the address")
@pytest.mark.parametrize("era", ERAS)
def test_a_token_in_the_address_is_ignored(server: Portico, era: str) -> None:
    """MCP AUTH; RFC 6750 5.3."""
    client = mcp_client(server, "alice", era)
    headers = client.headers("ping", {})
    token = headers.pop("authorization").removeprefix("Bearer ")
    there = f"{server.mcp_url}?access_token={token}"
    assert HTTP.post(there, json={}, headers=headers).status_code == 401


@pytest.mark.spec("MCP AUTH: every request is validated, in a session too")
@pytest.mark.parametrize("era", ERAS)
def test_a_token_revoked_within_a_session_is_refused(server: Portico, era: str) -> None:
    """MCP AUTH; BP Session Hijacking: a session is no authentication."""
    pair = server.issued("alice")
    client = McpClient(server, pair.access, era).open()
    assert client.allowed("look")
    IssuedToken.objects.filter(jti=pair.row.jti).revoke(actor="carol", reason="lost")
    assert client.call("look").status_code == 401
    if era == LEGACY:
        bare = McpClient(server, "", era, client.session)
        assert bare.post("ping").status_code == 401


@pytest.mark.spec("MCP BASE Statelessness: no session ids")
def test_the_newer_revision_has_no_sessions(server: Portico) -> None:
    """MCP 2026-07-28 BASE, HTTP: a session id is neither sent nor read."""
    client = mcp_client(server, "alice")
    odd = {"mcp-session-id": "x" * 32, "last-event-id": "7"}
    answer = client.post("tools/call", LOOK, odd)
    assert answer.status_code == 200 and "mcp-session-id" not in answer.headers
    assert client.post("initialize").status_code == 404


@pytest.mark.spec("MCP HTTP: notifications get 202 and nothing else")
@pytest.mark.parametrize("era", ERAS)
def test_a_notification_gets_202_and_no_body(server: Portico, era: str) -> None:
    """MCP HTTP, both revisions."""
    answer = mcp_client(server, "alice", era).notify("notifications/cancelled")
    assert (answer.status_code, answer.content) == (202, b"")


def encoded(text: str) -> str:
    """A header value in the encoding for other characters."""
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


@pytest.mark.spec("MCP HTTP Value Encoding: decoded before anything is decided")
def test_encoded_names_are_decoded_before_they_are_compared(server: Portico) -> None:
    """MCP HTTP: an encoded name neither bypasses a rule nor mismatches the body."""
    client = mcp_client(server, "alice")
    good = client.post("tools/call", LOOK, {"mcp-name": encoded("look")})
    assert message_in(good)["result"]["content"][0]["text"] == "alice looks at shelf"
    hidden = {"name": "rule", "arguments": {}}
    answer = client.post("tools/call", hidden, {"mcp-name": encoded("rule")})
    assert "Unknown tool: rule" in answer.text
    lying = client.post("tools/call", hidden, {"mcp-name": encoded("look")})
    assert message_in(lying)["error"]["code"] == -32020


@pytest.mark.spec("MCP HTTP: Mcp-Method and Mcp-Name are required and match the body")
@pytest.mark.parametrize(
    "extra",
    [{"mcp-method": "ping"}, {"mcp-name": "LOOK"}, {"mcp-name": ""}],
    ids=str,
)
def test_contradicting_headers_are_refused(
    server: Portico, extra: dict[str, str]
) -> None:
    """MCP HTTP, Server Validation: values are case-sensitive."""
    answer = mcp_client(server, "alice").post("tools/call", LOOK, extra)
    assert answer.status_code == 400
    assert message_in(answer)["error"]["code"] == -32020


@pytest.mark.spec("MCP HTTP: unknown Mcp-Param headers are ignored")
def test_unknown_param_headers_are_ignored(server: Portico) -> None:
    """MCP HTTP, Custom Headers."""
    answer = mcp_client(server, "alice").post(
        "tools/call", LOOK, {"mcp-param-odd": "x"}
    )
    assert answer.status_code == 200


@pytest.mark.spec("MCP VER: unsupported versions are named with the supported ones")
def test_an_unsupported_version_is_refused(server: Portico) -> None:
    """MCP VER, HTTP: -32022 with `supported`; envelope and header must agree."""
    client = mcp_client(server, "alice")
    version = "2099-01-01"
    future = {"_meta": {f"{META}protocolVersion": version}}
    answer = client.post("ping", future, {"mcp-protocol-version": version})
    error = message_in(answer)["error"]
    assert (answer.status_code, error["code"]) == (400, -32022)
    assert error["data"]["supported"] == [MODERN]
    other = client.post("tools/list", future)
    assert message_in(other)["error"]["code"] == -32020


@pytest.mark.spec("MCP BASE: a request without its envelope is -32602")
def test_an_envelope_is_required(server: Portico) -> None:
    """MCP BASE; HTTP."""
    client = mcp_client(server, "alice")
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    headers = client.headers("tools/list", {})
    answer = HTTP.post(server.mcp_url, json=body, headers=headers)
    assert answer.status_code == 400
    assert message_in(answer)["error"]["code"] == -32602


@pytest.mark.spec("MCP VER: server/discover, and initialize for older clients")
def test_discovery_requires_a_token(server: Portico) -> None:
    """MCP VER: anonymous requests get no information."""
    result = mcp_client(server, "alice").ask("server/discover")["result"]
    assert MODERN in result["supportedVersions"]
    for era, method in ((MODERN, "server/discover"), (LEGACY, "initialize")):
        assert McpClient(server, "", era).post(method).status_code == 401


@pytest.mark.spec("2025-11-25 transports: no version header means 2025-03-26")
def test_a_session_works_without_version_headers(server: Portico) -> None:
    """2025-11-25 transports, Protocol Version Header."""
    client = mcp_client(server, "alice", LEGACY)
    headers = client.headers("tools/list", {})
    del headers["mcp-protocol-version"]
    body = {"jsonrpc": "2.0", "id": 9, "method": "tools/list"}
    answer = HTTP.post(server.mcp_url, json=body, headers=headers)
    assert "look" in answer.text and answer.status_code == 200


RESPONSES: list[dict[str, Any]] = [
    {"id": 1, "result": {}},
    {"id": 1, "result": {}, "params": {}},
    {"id": 1, "result": None},
    {"id": "x", "error": {"code": 1, "message": "no"}},
    {"id": None, "error": {}},
    {"id": [1], "result": 3},
    {"result": {}},
]


@pytest.mark.parametrize("era", ERAS)
def test_a_response_to_no_request_is_taken_or_refused(
    server: Portico, workers: Portico, era: str
) -> None:
    """With and without sessions; the header may be left out."""
    for running in (server, workers):
        client = mcp_client(running, "alice", era)
        headers = client.headers("", {})
        bare = {k: v for k, v in headers.items() if k != "mcp-protocol-version"}
        for content, sent in product(RESPONSES, (headers, bare)):
            body = {"jsonrpc": "2.0", **content}
            answer = HTTP.post(running.mcp_url, json=body, headers=sent)
            assert answer.status_code in (202, 400), (content, answer.text)
        assert client.allowed("look")


@pytest.mark.parametrize("event", ["1", "x" * 200, "0123456789abcdef-0"])
def test_an_unknown_event_opens_the_clients_stream(server: Portico, event: str) -> None:
    """As without Last-Event-ID; the event may have expired."""
    last = {"last-event-id": event}
    client = mcp_client(server, "alice", LEGACY)
    headers = client.headers("", {}) | last
    with HTTP.stream("GET", server.mcp_url, headers=headers) as stream:
        assert stream.status_code == 200
        assert "text/event-stream" in stream.headers["content-type"]
        assert client.post("tools/call", LOOK, last).status_code == 200
    strange = {**headers, "mcp-session-id": "x" * 32}
    assert HTTP.get(server.mcp_url, headers=strange).status_code == 404
    assert HTTP.delete(server.mcp_url, headers=headers).status_code == 200
    newer = {**mcp_client(server, "alice").headers("", {}), **last}
    assert HTTP.get(server.mcp_url, headers=newer).status_code == 405
