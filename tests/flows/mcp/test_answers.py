"""Every row of the response table, in both revisions, over real HTTP."""

from __future__ import annotations

import json
from datetime import timedelta
from time import monotonic
from typing import Any

import httpx2
import pytest
from django.utils import timezone

from accounts.models import AuditEvent, IssuedToken, User
from accounts.tokens import jwts
from tests.support.mcp_client import (
    ERAS,
    LEGACY,
    MODERN,
    McpClient,
    challenge,
    mcp_client,
    message_in,
)
from tests.support.server import Portico
from tests.support.users import make_user

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]


def claims(server: Portico, raw: str) -> dict[str, Any]:
    """The claims of a token of `server`."""
    with server.settings():
        return jwts.verify(raw, allow_expired=True)


def sign_token(server: Portico, **changed: Any) -> str:
    """A correctly signed token of alice with other claims (None: left out)."""
    found = {**claims(server, server.token("alice")), **changed}
    kept = {name: value for name, value in found.items() if value is not None}
    with server.settings():
        return jwts.sign(kept)[0]


def challenge_of(server: Portico, raw: str, era: str) -> dict[str, str]:
    """The challenge of a 401; the test fails on any other response."""
    response = McpClient(server, raw, era).post("tools/list")
    assert response.status_code == 401, response.text
    return challenge(response)


@pytest.mark.spec("RFC 6750 3.1")
@pytest.mark.spec("RFC 9728 5.1")
@pytest.mark.parametrize("era", ERAS)
def test_without_a_token_the_challenge_names_no_error(
    server: Portico, era: str
) -> None:
    """RFC 6750 3.1, RFC 9728 5.1."""
    parameters = challenge_of(server, "", era)
    where = f"{server.url}/.well-known/oauth-protected-resource/mcp"
    assert parameters == {"resource_metadata": where, "scope": "mcp"}


@pytest.mark.spec("MCP AUTH Token Handling")
@pytest.mark.parametrize("era", ERAS)
def test_a_bad_expired_or_revoked_token_is_401_invalid_token(
    server: Portico, era: str
) -> None:
    """MCP AUTH, Token Handling; RFC 6750 3.1."""
    now = int(timezone.now().timestamp())
    expired = sign_token(server, exp=now - 1, iat=now - 10)
    ended = server.issued("alice")
    IssuedToken.objects.filter(pk=ended.row.pk).revoke(actor=None, reason="test")
    for raw in ("garbage", "a.b.c", expired, ended.access):
        assert challenge_of(server, raw, era)["error"] == "invalid_token"


@pytest.mark.spec("RFC 8707 2")
@pytest.mark.parametrize("audience", [None, "https://elsewhere.example/mcp", [], 7])
def test_a_token_for_another_audience_is_refused(
    server: Portico, audience: Any
) -> None:
    """RFC 8707 2; MCP AUTH Token Handling."""
    assert challenge_of(server, sign_token(server, aud=audience), MODERN)


def test_an_audience_with_a_trailing_slash_is_accepted(server: Portico) -> None:
    """Clients write the resource with and without the slash."""
    raw = sign_token(server, aud=[f"{server.mcp_url}/"])
    assert McpClient(server, raw).post("tools/list").status_code == 200


@pytest.mark.spec("RFC 9068 4")
def test_a_refresh_token_is_no_access_token(server: Portico) -> None:
    """RFC 9068 4."""
    assert challenge_of(server, server.issued("alice").refresh, MODERN)


ODD = [
    {"sub": True},
    {"sub": ["1"]},
    {"sub": 1},
    {"sub": None},
    {"sub": "0"},
    {"sub": "1 "},
    {"sub": "99999999999999999999"},
    {"sub": "²"},
    {"exp": "tomorrow"},
    {"exp": -1},
    {"exp": 10**30},
    {"exp": True},
    {"exp": None},
    {"exp": 1.5e300},
    {"iat": "now"},
    {"iat": 10**20},
    {"jti": None},
    {"jti": 7},
    {"jti": "unknown"},
    {"scope": None},
    {"scope": ["mcp"]},
    {"client_id": 3},
    {"iss": "https://elsewhere.example"},
    {"token_type": "refresh"},
    {"nbf": 10**12},
]


@pytest.mark.spec("RFC 8725 3")
@pytest.mark.parametrize("odd", ODD, ids=str)
def test_a_signed_token_with_odd_claims_is_401(
    server: Portico, odd: dict[str, Any]
) -> None:
    """RFC 8725 3: validate every claim; `sub: true` must not be user 1."""
    try:
        raw = sign_token(server, **odd)
    except Exception:
        pytest.skip("not even the library signs this")
    assert challenge_of(server, raw, MODERN)["error"] == "invalid_token"


def test_another_users_token_id_is_refused(server: Portico) -> None:
    """The row of a token and its subject must agree."""
    other = User.objects.get(username="carol")
    assert challenge_of(server, sign_token(server, sub=str(other.pk)), MODERN)


@pytest.mark.parametrize("era", ERAS)
def test_an_inactive_or_deleted_user_is_401(server: Portico, era: str) -> None:
    """OAuth 2.1 5.2: other policy."""
    dave = make_user("dave", "User")
    client = mcp_client(server, "dave", era)
    User.objects.filter(pk=dave.pk).update(is_active=False)
    assert client.post("tools/list").status_code == 401
    User.objects.filter(pk=dave.pk).update(is_active=True)
    assert client.post("tools/list").status_code == 200
    dave.delete()
    assert client.post("tools/list").status_code == 401


@pytest.mark.spec("RFC 6750 3.1")
@pytest.mark.spec("MCP AUTH Runtime Insufficient Scope")
@pytest.mark.parametrize("era", ERAS)
def test_a_token_too_narrow_gets_403_with_all_scopes_at_once(
    server: Portico, era: str
) -> None:
    """MCP AUTH, Runtime Insufficient Scope Errors."""
    narrow = mcp_client(server, "alice", era, scope="User.Read")
    assert narrow.text("look") == "alice looks at shelf"
    answer = narrow.call("erase")
    parameters = challenge(answer)
    assert (answer.status_code, parameters["error"]) == (403, "insufficient_scope")
    assert parameters["scope"].split() == ["User.Read", "User.Write"]
    assert parameters["resource_metadata"].endswith("/oauth-protected-resource/mcp")
    wider = mcp_client(server, "alice", era, scope=parameters["scope"])
    assert wider.text("erase") == "erased"


@pytest.mark.parametrize("era", ERAS)
def test_mcp_is_not_enough_for_a_sensitive_tool(server: Portico, era: str) -> None:
    """A sensitive tool needs its scope in the token."""
    client = mcp_client(server, "alice", era)
    assert client.call("erase").status_code == 403
    assert "erase" not in client.tools()
    assert "erase" in mcp_client(server, "alice", era, scope="mcp User.Write").tools()


@pytest.mark.parametrize("era", ERAS)
def test_a_sensitive_tool_is_listed_where_the_client_can_step_up(
    server: Portico, era: str
) -> None:
    """The user can widen a token from the browser sign-in."""
    client = mcp_client(server, "alice", era, issued_via="authorization_code")
    assert "erase" in client.tools()
    assert client.call("erase").status_code == 403


@pytest.mark.parametrize("era", ERAS)
def test_lists_have_only_what_the_role_allows(server: Portico, era: str) -> None:
    alice, bob = mcp_client(server, "alice", era), mcp_client(server, "bob", era)
    assert {"look", "whoami"} <= alice.tools()
    assert not {"rule", "lonely", "list_users"} & alice.tools()
    assert bob.tools() == {"whoami"}
    listed = alice.ask("resources/list")["result"]["resources"]
    assert {r["uri"] for r in listed} == {"shop://open", "portico://me"}
    templates = alice.ask("resources/templates/list")["result"]["resourceTemplates"]
    assert {t["uriTemplate"] for t in templates} == {"shop://shelf/{number}"}
    prompts = alice.ask("prompts/list")["result"]["prompts"]
    assert {p["name"] for p in prompts} == {"greet"}


@pytest.mark.spec("MCP CACHE")
def test_lists_are_private_and_not_cached(server: Portico) -> None:
    """MCP CACHE: filtered lists are private."""
    result = mcp_client(server, "alice").ask("tools/list")["result"]
    assert (result["cacheScope"], result["ttlMs"]) == ("private", 0)


@pytest.mark.spec("MCP HTTP Security")
@pytest.mark.parametrize("era", ERAS)
def test_a_foreign_origin_is_403_before_anything_else(
    server: Portico, era: str
) -> None:
    """MCP HTTP, Security: Origin."""
    for token in ("", "garbage", server.token("alice")):
        headers = {"origin": "https://evil.example"}
        response = McpClient(server, token, era).post("ping", extra=headers)
        assert response.status_code == 403
        assert "www-authenticate" not in response.headers
    fine = {"origin": "http://localhost:6274"}
    assert mcp_client(server, "alice", era).post("tools/list", extra=fine).is_success


@pytest.mark.spec("MCP HTTP Security")
def test_a_foreign_host_is_421(server: Portico) -> None:
    """MCP HTTP, Security: DNS rebinding."""
    response = mcp_client(server, "alice").post(
        "tools/list", extra={"host": "evil.example"}
    )
    assert response.status_code == 421


def raw_post(server: Portico, body: bytes, era: str = MODERN) -> httpx2.Response:
    client = McpClient(server, server.token("alice"), era)
    headers = {**client.headers("ping", {}), "content-type": "application/json"}
    return client.http.post(server.mcp_url, content=body, headers=headers)


BAD_BODIES = [
    b"",
    b"{",
    b"[]",
    b"7",
    b"null",
    b'"ping"',
    b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
    b'{"id":1,"method":"ping"}',
    b'{"jsonrpc":"1.0","id":1,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":1}',
    b'{"jsonrpc":"2.0","id":1,"method":7}',
    b'{"jsonrpc":"2.0","id":1,"method":null}',
    b'{"jsonrpc":"2.0","id":{},"method":"ping"}',
    b"[" * 100_000,
    b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b"9" * 5000 + b"}",
    b"\xff\xfe{}",
]


@pytest.mark.spec("JSON-RPC 2.0 5.1")
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda b: repr(b[:30]))
def test_a_body_that_is_not_one_message_is_400(
    server: Portico, body: bytes, era: str
) -> None:
    """MCP HTTP: one JSON-RPC message a request; batches are refused."""
    response = raw_post(server, body, era)
    assert response.status_code == 400, response.text
    assert "Traceback" not in response.text


@pytest.mark.spec("RFC 9110 15.5.14")
def test_a_body_too_large_is_413(server: Portico) -> None:
    """RFC 9110 15.5.14, declared or not."""
    filler = b" " * (4 * 1024 * 1024 + 1)
    assert raw_post(server, filler).status_code == 413
    client = mcp_client(server, "alice")
    headers = {**client.headers("ping", {}), "content-type": "application/json"}
    chunks = (filler[i : i + 65536] for i in range(0, len(filler), 65536))
    response = client.http.post(server.mcp_url, content=chunks, headers=headers)
    assert response.status_code == 413


@pytest.mark.spec("MCP HTTP Server Validation")
def test_header_and_body_must_agree(server: Portico) -> None:
    """MCP HTTP, Server Validation (2026-07-28)."""
    client = mcp_client(server, "alice")
    lying = client.post(
        "tools/call", {"name": "look", "arguments": {}}, {"mcp-name": "rule"}
    )
    assert lying.status_code == 400
    assert message_in(lying)["error"]["code"] == -32020


def test_false_headers_of_the_older_revision_are_ignored(server: Portico) -> None:
    client = mcp_client(server, "alice", LEGACY)
    lie = {"mcp-method": "tools/call", "mcp-name": "look"}
    hidden = client.post("tools/call", {"name": "rule", "arguments": {}}, lie)
    assert "Unknown tool: rule" in hidden.text
    doubled = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"ping",'
        b'"params":{"name":"look","name":"rule","arguments":{}}}'
    )
    assert "rules" not in raw_post(server, doubled, LEGACY).text


@pytest.mark.spec("JSON-RPC 2.0 5.1")
@pytest.mark.parametrize("method", ["tasks/list", "roots/list", "x/y", "stream/open"])
@pytest.mark.parametrize("era", ERAS)
def test_unknown_methods_are_refused(server: Portico, method: str, era: str) -> None:
    """The decision refuses every method that it does not list."""
    client = mcp_client(server, "alice", era)
    response = client.post(method)
    assert message_in(response)["error"]["code"] == -32601
    assert response.status_code == (404 if era == MODERN else 200)
    assert AuditEvent.objects.filter(object=method, decision="denied").exists()


def test_every_message_is_audited_with_its_reason(server: Portico) -> None:
    """No response is sent before its event is stored."""
    client = mcp_client(server, "alice")
    before = AuditEvent.objects.order_by("-pk").values_list("pk", flat=True)[0]
    client.call("look")
    client.call("rule")
    client.call("fail")
    client.call("erase")
    client.post("tools/list")
    McpClient(server, "garbage").post("ping")
    events = AuditEvent.objects.filter(pk__gt=before).order_by("pk")
    assert [(e.action, e.decision, e.reason, e.outcome) for e in events] == [
        ("tool.called", "allowed", "granted", "ok"),
        ("tool.denied", "denied", "role_lacks_scope", "error"),
        ("tool.called", "allowed", "granted", "error"),
        ("tool.denied", "denied", "token_lacks_scope", ""),
        ("message.allowed", "allowed", "open_method", ""),
        ("request.refused", "denied", "malformed", ""),
    ]
    first = events[0]
    assert (first.actor, first.object) == ("alice", "tool look")
    assert first.via == "role User grants User.Read"
    assert first.address == "127.0.0.1" and first.request_id and first.token_id


def test_the_list_shows_the_last_use(server: Portico) -> None:
    pair = server.issued("alice")
    client = McpClient(server, pair.access)
    row = pair.row
    end = monotonic() + 30
    while row.last_used_at is None and monotonic() < end:
        client.post("tools/list")
        row = IssuedToken.objects.get(pk=pair.row.pk)
    assert row.last_used_from == "127.0.0.1"
    assert row.last_used_at is not None
    assert timezone.now() - row.last_used_at < timedelta(minutes=1)


def test_raw_tokens_are_stored_nowhere(server: Portico) -> None:
    """MCP SEC, Token Theft: secure storage."""
    from django.apps import apps

    pair = server.issued("alice")
    mcp_client(server, "alice").call("look", what="shelf")
    needles = [pair.access.split(".")[2], pair.refresh.split(".")[2]]
    for model in apps.get_models():
        text = json.dumps(list(model._default_manager.values()), default=str)
        assert not any(needle in text for needle in needles), model
    assert not any(needle in server.log.read_text() for needle in needles)


def test_a_failing_tool_shows_no_details(server: Portico) -> None:
    """Neither a stack trace nor the text of the exception."""
    answer = mcp_client(server, "alice").call("fail")
    assert message_in(answer)["result"]["isError"] is True
    assert "secret detail" not in answer.text


@pytest.mark.parametrize("era", ERAS)
def test_django_orm_works_in_both_kinds_of_tools(server: Portico, era: str) -> None:
    """Covers synchronous and asynchronous tools."""
    client = mcp_client(server, "alice", era)
    expected = str(User.objects.count())
    assert client.text("count_users") == client.text("count_users_async") == expected
