"""What the token endpoint and its neighbours give and take."""

from __future__ import annotations

import base64
import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import AuditEvent, IssuedToken, OAuthGrant, User
from accounts.oauth.validator import code_hash
from accounts.tokens import issue_personal
from tests.flows.oauth import (
    code_of,
    made,
    redeem,
    refresh,
    refused,
    registered,
    signed_in,
    token,
)
from tests.flows.server import Portico
from tests.flows.wire import HTTP, Wire
from tests.people import person

pytestmark = pytest.mark.usefixtures("cast")


@pytest.mark.spec("MCP SEC Token Theft: stored hashed")
@pytest.mark.spec("OAuth 2.1 4.1.3")
def test_a_replayed_code_ends_what_it_bought(server: Portico) -> None:
    """OAuth 2.1 4.1.3."""
    client_id = registered(server)["client_id"]
    code, raw = code_of(server, client_id)
    first = redeem(server, client_id, code, raw).json()
    assert Wire(server, first["access_token"]).allowed("look")
    again = redeem(server, client_id, code, raw)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert Wire(server, first["access_token"]).post("ping").status_code == 401
    refused = token(
        server,
        grant_type="refresh_token",
        client_id=client_id,
        refresh_token=first["refresh_token"],
    )
    assert refused.json()["error"] == "invalid_grant"
    assert AuditEvent.objects.filter(action="code.replayed").exists()
    assert not OAuthGrant.objects.filter(code=code).exists(), "codes are hashed"


@pytest.mark.spec("RFC 8707 2.2: resource within the grant")
@pytest.mark.spec("RFC 6749 5.2: another redirect_uri is invalid_grant")
@pytest.mark.spec("OAuth 2.1 4.1.3: code bound to client, redirect, challenge")
@pytest.mark.spec("RFC 7636 4.6")
@pytest.mark.parametrize(
    ("changed", "status", "error"),
    [
        ({"code_verifier": "x" * 43}, 400, "invalid_grant"),
        ({"code_verifier": "short"}, 400, "invalid_grant"),
        ({"code_verifier": None}, 400, "invalid_request"),
        ({"code": "unknown"}, 400, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:43117/no"}, 400, "invalid_grant"),
        ({"client_id": "another"}, 401, "invalid_client"),
        ({"resource": "https://elsewhere.example/mcp"}, 400, "invalid_target"),
    ],
    ids=str,
)
def test_a_code_is_bound_to_its_request(
    server: Portico, changed: dict[str, Any], status: int, error: str
) -> None:
    """RFC 7636 4.6; OAuth 2.1 4.1.3."""
    client_id = registered(server)["client_id"]
    code, raw = code_of(server, client_id)
    fields = {"client_id": client_id, "code": code, "raw": raw}
    form = {k: v for k, v in changed.items() if k not in fields}
    fields |= {k: v for k, v in changed.items() if k in fields}
    assert refused(redeem(server, **fields, **form)) == (status, error)
    assert redeem(server, client_id, code, raw).status_code == 200


@pytest.mark.spec("OAuth 2.1 10.2: redirect_uri optional at the token endpoint")
def test_the_redirect_uri_may_be_left_out_at_the_token_endpoint(
    server: Portico,
) -> None:
    """OAuth 2.1 10.2."""
    client_id = registered(server)["client_id"]
    code, raw = code_of(server, client_id)
    answer = redeem(server, client_id, code, raw, redirect_uri=None)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_somebody_deactivated_on_the_way_gets_nothing(server: Portico) -> None:
    """Show 6: between the decision and the token; W7."""
    person("rupert", "User")
    client_id = registered(server)["client_id"]
    code, raw = code_of(server, client_id, "rupert")
    User.objects.filter(username="rupert").update(is_active=False)
    answer = redeem(server, client_id, code, raw)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


@pytest.mark.spec("OAuth 2.1 4.3.1")
def test_parallel_refreshes_give_one_successor(server: Portico) -> None:
    """OAuth 2.1 4.3.1, trap T9: opaque, hashed, and still the same one."""
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
        live = Wire(server, used.json()["access_token"])
        assert live.post("ping").status_code == 401


@pytest.mark.spec("OAuth 2.1 4.3: refresh bound to client, scope, resource")
@pytest.mark.spec("RFC 8707 2.2: resource within the grant")
def test_a_refresh_token_is_bound_to_its_client_and_person(server: Portico) -> None:
    """OAuth 2.1 4.3; W7."""
    person("quinn", "User")
    client_id, answer = signed_in(server, "quinn")
    other = registered(server)["client_id"]
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
    other = registered(server)["client_id"]
    url = f"{server.url}/oauth/revoke"
    for token_ in (answer["access_token"], answer["refresh_token"], "unknown"):
        form = {"client_id": other, "token": token_}
        assert HTTP.post(url, data=form).status_code == 200
    assert Wire(server, answer["access_token"]).allowed("look")
    form = {"client_id": client_id, "token": answer["refresh_token"]}
    assert HTTP.post(url, data=form).status_code == 200
    assert Wire(server, answer["access_token"]).post("ping").status_code == 401


@pytest.mark.spec("OAuth 2.1 2.4.1: wrong secrets are invalid_client")
@pytest.mark.spec("RFC 7662 2")
def test_introspection_needs_a_secret(server: Portico) -> None:
    """RFC 7662 2.1, 2.2."""
    known = made("watcher", "--redirect-uri", "https://w.example/cb")
    basic = (known["client_id"], known["client_secret"])
    url = f"{server.url}/oauth/introspect"
    live = {"token": server.token("alice")}
    told = HTTP.post(url, data=live, auth=basic).json()
    assert told["active"] is True and told["username"] == "alice"
    assert told["aud"] == server.mcp_url and told["scope"] == "mcp"
    dead = HTTP.post(url, data={"token": "nonsense"}, auth=basic).json()
    assert dead == {"active": False}
    public = {**live, "client_id": registered(server)["client_id"]}
    assert HTTP.post(url, data=public).status_code == 401
    assert HTTP.post(url, data=live, auth=(basic[0], "wrong")).status_code == 401


@pytest.mark.spec("OAuth 2.1 4.2")
def test_a_service_account_acts_on_its_own(server: Portico) -> None:
    """OAuth 2.1 4.2: client credentials, with roles, without refresh token."""
    person("robot", "User")
    known = made("nightly job", "--service-account", "robot")
    basic = (known["client_id"], known["client_secret"])
    form = {"grant_type": "client_credentials", "scope": "mcp"}
    answer = HTTP.post(f"{server.url}/oauth/token", data=form, auth=basic)
    assert answer.status_code == 200, answer.text
    assert "refresh_token" not in answer.json()
    client = Wire(server, answer.json()["access_token"])
    assert client.text("look") == "robot looks at shelf"
    wrong = HTTP.post(f"{server.url}/oauth/token", data=form, auth=(basic[0], "no"))
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    public = registered(server)["client_id"]
    asked = token(server, grant_type="client_credentials", client_id=public)
    assert refused(asked) == (400, "unauthorized_client")


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


@pytest.mark.spec("RFC 6749 6: a refresh may narrow, the next is as wide again")
def test_a_refresh_may_ask_for_less(server: Portico) -> None:
    """RFC 6749 6: the access token is narrowed, the grant is not."""
    client_id, answer = signed_in(server, scope="mcp User.Write")
    narrow = refresh(server, client_id, answer["refresh_token"], scope="mcp").json()
    assert narrow["scope"] == "mcp"
    whole = refresh(server, client_id, narrow["refresh_token"]).json()
    assert whole["scope"] == "mcp User.Write"


@pytest.mark.spec("MCP AUTH Overview 1: confidential and public clients")
@pytest.mark.spec("OAuth 2.1 2.4: one way to authenticate, in the body or Basic")
def test_a_secret_counts_in_one_place_only(server: Portico) -> None:
    """OAuth 2.1 2.4.1: Basic or body, not both, never in the address."""
    known = registered(server, token_endpoint_auth_method="client_secret_basic")
    client_id, secret = known["client_id"], known["client_secret"]
    body = {"client_id": client_id, "client_secret": secret}
    url = f"{server.url}/oauth/token"
    code, raw = code_of(server, client_id)
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": raw}
    basic = (client_id, secret)
    both = HTTP.post(url, data=form | body, auth=basic)
    assert refused(both) == (400, "invalid_request")
    other = registered(server)["client_id"]
    mixed = HTTP.post(url, data=form | {"client_id": other}, auth=basic)
    assert refused(mixed) == (401, "invalid_client")
    assert mixed.headers["www-authenticate"].startswith("Basic ")
    for endpoint in ("token", "revoke", "introspect"):
        asked = form | {"token": "x"}
        there = f"{server.url}/oauth/{endpoint}"
        answer = HTTP.post(there, params=body, data=asked)
        assert refused(answer) == (400, "invalid_request")
    for auth in ((client_id, "wrong"), (client_id, "")):
        assert refused(HTTP.post(url, data=form, auth=auth)) == (401, "invalid_client")
    assert HTTP.post(url, data=form, auth=basic).status_code == 200
    code, raw = code_of(server, client_id)
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
    assert refused(answer) == (401, "invalid_client")


def test_a_public_client_may_come_with_an_empty_secret(server: Portico) -> None:
    """RFC 6749 2.3.1: as clients that try Basic first do."""
    client_id = registered(server)["client_id"]
    code, raw = code_of(server, client_id)
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": raw}
    answer = HTTP.post(f"{server.url}/oauth/token", data=form, auth=(client_id, ""))
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("body", ["a=1&" * 3_000, "a=" + "x" * 3_000_000])
def test_a_form_too_large_is_refused_in_json(server: Portico, body: str) -> None:
    """OAuth 2.1 3.2.4."""
    kind = {"content-type": "application/x-www-form-urlencoded"}
    answer = HTTP.post(f"{server.url}/oauth/token", content=body, headers=kind)
    assert refused(answer) == (400, "invalid_request")


def test_introspection_knows_personal_tokens(server: Portico) -> None:
    """RFC 7662 2.2: what is accepted at /mcp is active here."""
    known = made("watcher", "--redirect-uri", "https://w.example/cb")
    basic = (known["client_id"], known["client_secret"])
    alice = User.objects.get(username="alice")
    row, raw = issue_personal(
        alice, name="script", scope="mcp", lifetime=timedelta(hours=1)
    )
    url = f"{server.url}/oauth/introspect"
    told = HTTP.post(url, data={"token": raw}, auth=basic).json()
    assert told["active"] is True and told["jti"] == row.jti
    verify = f"{server.url}/api/token/verify/"
    assert HTTP.post(verify, json={"token": raw}).status_code == 200
    IssuedToken.objects.filter(pk=row.pk).revoke(actor="carol", reason="lost")
    told = HTTP.post(url, data={"token": raw}, auth=basic).json()
    assert told == {"active": False}
    assert HTTP.post(verify, json={"token": raw}).status_code == 401


@pytest.mark.spec("OAuth 2.1 4.1.2: codes are short-lived and unguessable")
def test_a_code_is_long_to_guess_and_short_to_live(server: Portico) -> None:
    """OAuth 2.1 4.1.2, 7.5; RFC 6749 10.10: 160 bits, a minute."""
    client_id = registered(server)["client_id"]
    codes = [code_of(server, client_id) for _ in range(2)]
    for code, _ in codes:
        assert re.fullmatch(r"[A-Za-z0-9_-]{27,}", code), "27 * 6 bits; VS Code's rule"
    grant = OAuthGrant.objects.get(code=code_hash(codes[1][0]))
    assert grant.expires - timezone.now() <= timedelta(minutes=1)
    OAuthGrant.objects.filter(pk=grant.pk).update(expires=timezone.now())
    answer = redeem(server, client_id, *codes[1])
    assert refused(answer) == (400, "invalid_grant")


@pytest.mark.spec("RFC 7636 4.1: 43 to 128 characters")
@pytest.mark.parametrize("raw", ["short", "x" * 129, "x" * 42 + "!", "x" * 42 + "é"])
def test_a_verifier_has_the_length_of_the_rfc(server: Portico, raw: str) -> None:
    """RFC 7636 4.1, 4.6: although its hash is right."""
    client_id = registered(server)["client_id"]
    digest = hashlib.sha256(raw.encode()).digest()
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    code, _ = code_of(server, client_id, code_challenge=challenge)
    answer = redeem(server, client_id, code, raw)
    assert refused(answer) == (400, "invalid_grant")


@pytest.mark.spec("OAuth 2.1 4.3: refresh tokens expire when idle")
def test_an_idle_refresh_token_ends(server: Portico) -> None:
    """OAuth 2.1 4.3."""
    client_id, answer = signed_in(server)
    rows = IssuedToken.objects.filter(client_id=client_id, kind="refresh")
    rows.update(expires_at=timezone.now())
    late = refresh(server, client_id, answer["refresh_token"])
    assert refused(late) == (400, "invalid_grant")


@pytest.mark.spec("MCP SEC Token Theft: never logged")
def test_no_secret_reaches_the_log(server: Portico) -> None:
    """MCP SEC; OAuth 2.1 7.1: codes, tokens, secrets, verifiers."""
    known = registered(server, token_endpoint_auth_method="client_secret_post")
    client_id, secret = known["client_id"], known["client_secret"]
    code, raw = code_of(server, client_id)
    proof = {"client_secret": secret}
    answer = redeem(server, client_id, code, raw, **proof).json()
    refresh(server, client_id, answer["refresh_token"], **proof)
    redeem(server, client_id, code, raw, **proof)
    Wire(server, answer["access_token"]).call("look")
    logged = server.log.read_text()
    for told in (secret, code, raw, answer["access_token"], answer["refresh_token"]):
        assert told not in logged
