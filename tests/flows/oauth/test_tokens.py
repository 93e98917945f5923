"""The token, revocation and introspection endpoints."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import IssuedToken, OAuthClient, User
from accounts.tokens.issue import issue_personal_token
from tests.support.mcp_client import HTTP, McpClient
from tests.support.oauth_client import (
    command_line_client,
    consented_code,
    error_of,
    refresh,
    register_client,
    signed_in,
    token,
)
from tests.support.server import Portico
from tests.support.users import make_user

pytestmark = pytest.mark.usefixtures("default_users")


@pytest.mark.spec("OAuth 2.1 4.3.1")
def test_parallel_refreshes_give_one_successor(server: Portico) -> None:
    """OAuth 2.1 4.3.1: opaque, hashed, and the same token for all."""
    client_id, answer = signed_in(server)
    raw = answer["refresh_token"]
    with ThreadPoolExecutor(8) as pool:
        work = [pool.submit(refresh, server, client_id, raw) for _ in range(8)]
    answers = [job.result() for job in work]
    assert [a.status_code for a in answers] == [200] * 8
    assert len({a.json()["refresh_token"] for a in answers}) == 1
    following = answers[0].json()["refresh_token"]
    assert refresh(server, client_id, following).status_code == 200
    past = timezone.now() - timedelta(minutes=5)
    IssuedToken.objects.filter(client_id=client_id, kind="refresh").update(
        redeemed_at=past
    )
    replay = refresh(server, client_id, raw)
    assert replay.json()["error"] == "invalid_grant"
    for used in answers:
        live = McpClient(server, used.json()["access_token"])
        assert live.post("ping").status_code == 401


@pytest.mark.spec("OAuth 2.1 4.3: refresh bound to client, scope, resource")
@pytest.mark.spec("RFC 8707 2.2: resource within the grant")
def test_a_refresh_token_is_bound_to_its_client_and_user(server: Portico) -> None:
    """OAuth 2.1 4.3."""
    make_user("quinn", "User")
    client_id, answer = signed_in(server, "quinn")
    other = register_client(server)["client_id"]
    raw = answer["refresh_token"]
    assert refresh(server, other, raw).json()["error"] == "invalid_grant"
    wrong = refresh(server, client_id, raw, resource="https://elsewhere.example")
    assert wrong.json()["error"] == "invalid_target"
    wider = refresh(server, client_id, raw, scope="mcp Admin.Write")
    assert wider.json()["error"] == "invalid_scope"
    User.objects.filter(username="quinn").update(is_active=False)
    assert refresh(server, client_id, raw).json()["error"] == "invalid_grant"
    simple = HTTP.post(f"{server.url}/api/token/refresh/", json={"refresh": raw})
    assert simple.status_code == 401


@pytest.mark.spec("RFC 7009 2")
def test_a_public_client_revokes_its_own_tokens_only(server: Portico) -> None:
    """RFC 7009 2.1, 2.2."""
    client_id, answer = signed_in(server)
    other = register_client(server)["client_id"]
    url = f"{server.url}/oauth/revoke"
    for token_ in (answer["access_token"], answer["refresh_token"], "unknown"):
        form = {"client_id": other, "token": token_}
        assert HTTP.post(url, data=form).status_code == 200
    assert McpClient(server, answer["access_token"]).allowed("look")
    form = {"client_id": client_id, "token": answer["refresh_token"]}
    assert HTTP.post(url, data=form).status_code == 200
    assert McpClient(server, answer["access_token"]).post("ping").status_code == 401


@pytest.mark.spec("OAuth 2.1 2.4.1: wrong secrets are invalid_client")
@pytest.mark.spec("RFC 7662 2")
def test_introspection_needs_a_secret(server: Portico) -> None:
    """RFC 7662 2.1, 2.2."""
    known = command_line_client("watcher", "--redirect-uri", "https://w.example/cb")
    basic = (known["client_id"], known["client_secret"])
    url = f"{server.url}/oauth/introspect"
    live = {"token": server.token("alice")}
    facts = HTTP.post(url, data=live, auth=basic).json()
    assert facts["active"] is True and facts["username"] == "alice"
    assert facts["aud"] == server.mcp_url and facts["scope"] == "mcp"
    dead = HTTP.post(url, data={"token": "nonsense"}, auth=basic).json()
    assert dead == {"active": False}
    public = {**live, "client_id": register_client(server)["client_id"]}
    assert HTTP.post(url, data=public).status_code == 401
    assert HTTP.post(url, data=live, auth=(basic[0], "wrong")).status_code == 401


@pytest.mark.spec("OAuth 2.1 4.2")
def test_a_service_account_acts_on_its_own(server: Portico) -> None:
    """OAuth 2.1 4.2: client credentials, with roles, without refresh token."""
    make_user("robot", "User")
    known = command_line_client("nightly job", "--service-account", "robot")
    basic = (known["client_id"], known["client_secret"])
    form = {"grant_type": "client_credentials", "scope": "mcp"}
    answer = HTTP.post(f"{server.url}/oauth/token", data=form, auth=basic)
    assert answer.status_code == 200, answer.text
    assert "refresh_token" not in answer.json()
    client = McpClient(server, answer.json()["access_token"])
    assert client.text("look") == "robot looks at shelf"
    wrong = HTTP.post(f"{server.url}/oauth/token", data=form, auth=(basic[0], "no"))
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    public = register_client(server)["client_id"]
    refusal = token(server, grant_type="client_credentials", client_id=public)
    assert error_of(refusal) == (400, "unauthorized_client")


@pytest.mark.spec("OAuth 2.1 10: no password, no implicit grant")
@pytest.mark.spec("OAuth 2.1 3.2.4: error codes")
@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "refresh_token", "client_id": "nope"}, "invalid_client"),
        ({"grant_type": "refresh_token"}, "invalid_client"),
        ({"grant_type": ["refresh_token", "x"]}, "invalid_request"),
        (
            {"grant_type": "authorization_code", "client_id": "nope", "code": "x"},
            "invalid_client",
        ),
        ({"grant_type": "authorization_code", "code": "a\x00"}, "invalid_request"),
    ],
    ids=str,
)
def test_token_requests_get_the_code_of_the_rfc(
    server: Portico, form: dict[str, Any], error: str
) -> None:
    """OAuth 2.1 3.2.4; never a 500."""
    answer = HTTP.post(f"{server.url}/oauth/token", data=form)
    assert answer.status_code in (400, 401) and answer.json()["error"] == error
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.spec("RFC 6749 6: a narrowed refresh does not narrow the grant")
def test_a_refresh_may_ask_for_less(server: Portico) -> None:
    """RFC 6749 6: the access token is narrowed, the grant is not."""
    client_id, answer = signed_in(server, scope="mcp User.Write")
    narrow = refresh(server, client_id, answer["refresh_token"], scope="mcp").json()
    assert narrow["scope"] == "mcp"
    whole = refresh(server, client_id, narrow["refresh_token"]).json()
    assert whole["scope"] == "mcp User.Write"


@pytest.mark.spec("MCP AUTH Overview 1: confidential and public clients")
@pytest.mark.spec("OAuth 2.1 2.4: one way to authenticate, in the body or Basic")
def test_a_secret_is_accepted_in_one_place_only(server: Portico) -> None:
    """OAuth 2.1 2.4.1: Basic or body, not both, never in the address."""
    known = register_client(server, token_endpoint_auth_method="client_secret_basic")
    client_id, secret = known["client_id"], known["client_secret"]
    body = {"client_id": client_id, "client_secret": secret}
    url = f"{server.url}/oauth/token"
    code, raw = consented_code(server, client_id)
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": raw}
    basic = (client_id, secret)
    both = HTTP.post(url, data=form | body, auth=basic)
    assert error_of(both) == (400, "invalid_request")
    other = register_client(server)["client_id"]
    mixed = HTTP.post(url, data=form | {"client_id": other}, auth=basic)
    assert error_of(mixed) == (401, "invalid_client")
    assert mixed.headers["www-authenticate"].startswith("Basic ")
    for endpoint in ("token", "revoke", "introspect"):
        form_data = form | {"token": "x"}
        there = f"{server.url}/oauth/{endpoint}"
        answer = HTTP.post(there, params=body, data=form_data)
        assert error_of(answer) == (400, "invalid_request")
    for auth in ((client_id, "wrong"), (client_id, "")):
        assert error_of(HTTP.post(url, data=form, auth=auth)) == (401, "invalid_client")
    assert HTTP.post(url, data=form, auth=basic).status_code == 200
    code, raw = consented_code(server, client_id)
    form |= {"code": code, "code_verifier": raw}
    assert HTTP.post(url, data=form | body).status_code == 200


@pytest.mark.parametrize("header", ["!!!", "YWJj", "/zov", "YQA6Yg=="])
def test_odd_basic_headers_are_invalid_client(server: Portico, header: str) -> None:
    """RFC 7617 2: no base64, no colon, no UTF-8, a NUL."""
    form = {"grant_type": "authorization_code", "code": "x"}
    answer = HTTP.post(
        f"{server.url}/oauth/token",
        data=form,
        headers={"authorization": f"Basic {header}"},
    )
    assert error_of(answer) == (401, "invalid_client")


def test_a_public_client_may_send_an_empty_secret(server: Portico) -> None:
    """RFC 6749 2.3.1: some clients try Basic first."""
    client_id = register_client(server)["client_id"]
    code, raw = consented_code(server, client_id)
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": raw}
    answer = HTTP.post(f"{server.url}/oauth/token", data=form, auth=(client_id, ""))
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("body", "status"), [("a=1&" * 6_000, 400), ("a=" + "x" * 3_000_000, 413)]
)
def test_a_form_too_large_is_refused_in_json(
    server: Portico, body: str, status: int
) -> None:
    """OAuth 2.1 3.2.4."""
    kind = {"content-type": "application/x-www-form-urlencoded"}
    answer = HTTP.post(f"{server.url}/oauth/token", content=body, headers=kind)
    assert error_of(answer) == (status, "invalid_request")


def test_introspection_includes_personal_tokens(server: Portico) -> None:
    """RFC 7662 2.2: a token accepted at /mcp is active here."""
    known = command_line_client("watcher", "--redirect-uri", "https://w.example/cb")
    basic = (known["client_id"], known["client_secret"])
    alice = User.objects.get(username="alice")
    row, raw = issue_personal_token(
        alice, name="script", scope="mcp", lifetime=timedelta(hours=1)
    )
    url = f"{server.url}/oauth/introspect"
    facts = HTTP.post(url, data={"token": raw}, auth=basic).json()
    assert facts["active"] is True and facts["jti"] == row.jti
    verify = f"{server.url}/api/token/verify/"
    assert HTTP.post(verify, json={"token": raw}).status_code == 200
    IssuedToken.objects.filter(pk=row.pk).revoke(actor="carol", reason="lost")
    facts = HTTP.post(url, data={"token": raw}, auth=basic).json()
    assert facts == {"active": False}
    assert HTTP.post(verify, json={"token": raw}).status_code == 401


@pytest.mark.parametrize("way", ["client_secret_basic", "client_secret_post"])
def test_unapproved_clients_get_no_token_information(server: Portico, way: str) -> None:
    """RFC 7662 4: any program may register, also with a secret."""
    known = register_client(server, token_endpoint_auth_method=way)
    proof = {name: known[name] for name in ("client_id", "client_secret")}
    ask: dict[str, Any] = {"url": f"{server.url}/oauth/introspect"}
    ask["data"] = {"token": server.token("alice")}
    if way == "client_secret_basic":
        ask["auth"] = tuple(proof.values())
    else:
        ask["data"] |= proof
    assert error_of(HTTP.post(**ask)) == (403, "unauthorized_client")
    OAuthClient.objects.filter(client_id=known["client_id"]).update(approved=True)
    assert HTTP.post(**ask).json()["active"] is True


def bound_tokens(server: Portico, networks: str) -> dict[str, str]:
    """One token of each kind that is accepted from `networks` only."""
    alice = User.objects.get(username="alice")
    about: Any = {"name": "bound", "scope": "mcp", "lifetime": timedelta(hours=1)}
    _row, personal = issue_personal_token(alice, networks=networks, **about)
    pair = server.issued("alice", networks=networks)
    client_id = command_line_client("bound", "--redirect-uri", "https://b.example/cb")[
        "client_id"
    ]
    OAuthClient.objects.filter(client_id=client_id).update(networks=networks)
    through = server.token("alice", client_id=client_id)
    found = {"personal": personal, "access": pair.access, "client": through}
    return {**found, "refresh": pair.refresh}


@pytest.mark.parametrize("kind", ["personal", "access", "refresh", "client"])
def test_a_token_bound_to_networks_is_active_there_only(
    server: Portico, kind: str
) -> None:
    """Introspection and verification answer as /mcp would."""
    known = command_line_client("watcher", "--redirect-uri", "https://w.example/cb")
    basic = (known["client_id"], known["client_secret"])
    url, verify = f"{server.url}/oauth/introspect", f"{server.url}/api/token/verify/"
    for networks, counts in (("10.99.0.0/16", False), ("127.0.0.0/8", True)):
        raw = bound_tokens(server, networks)[kind]
        active = HTTP.post(url, data={"token": raw}, auth=basic).json()["active"]
        assert active is (counts and kind != "refresh")
        status = HTTP.post(verify, json={"token": raw}).status_code
        assert status == (200 if counts else 401)


@pytest.mark.spec("OAuth 2.1 4.3: refresh tokens expire when idle")
def test_an_idle_refresh_token_expires(server: Portico) -> None:
    """OAuth 2.1 4.3."""
    client_id, answer = signed_in(server)
    rows = IssuedToken.objects.filter(client_id=client_id, kind="refresh")
    rows.update(expires_at=timezone.now())
    late = refresh(server, client_id, answer["refresh_token"])
    assert error_of(late) == (400, "invalid_grant")
