"""Real clients sign people in: discovery, registration, consent, tokens, their end."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
from django.core.management import call_command
from django.utils import timezone
from mcp.client import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata
from pydantic import AnyUrl

from accounts.models import AuditEvent, IssuedToken, OAuthClient, OAuthGrant, User
from tests.flows.server import Portico
from tests.flows.visitor import Visitor, callback, metadata_of
from tests.flows.wire import HTTP, Wire
from tests.people import person

pytestmark = pytest.mark.usefixtures("cast")
BACK = "http://127.0.0.1:43117/callback"


def verifier() -> tuple[str, str]:
    """A PKCE verifier and its S256 challenge (RFC 7636 4)."""
    raw = secrets.token_urlsafe(48)
    digest = hashlib.sha256(raw.encode()).digest()
    return raw, base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def registered(server: Portico, **metadata: Any) -> dict[str, Any]:
    """A client registered by itself."""
    body = {
        "client_name": "Tester",
        "redirect_uris": ["http://127.0.0.1/callback"],
        "token_endpoint_auth_method": "none",
        **metadata,
    }
    answer = HTTP.post(f"{server.url}/oauth/register", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def question(server: Portico, client_id: str, **changed: Any) -> tuple[str, str]:
    """An authorize URL and the verifier behind it."""
    raw, challenge = verifier()
    params = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": BACK,
        "state": "xyz",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "resource": server.mcp_url,
        "scope": "mcp",
        **changed,
    }
    kept = {name: value for name, value in params.items() if value is not None}
    return f"{server.url}/oauth/authorize?{urlencode(kept, doseq=True)}", raw


def token(server: Portico, **form: Any) -> httpx2.Response:
    """POST to the token endpoint."""
    kept = {name: value for name, value in form.items() if value is not None}
    return HTTP.post(f"{server.url}/oauth/token", data=kept)


def signed_in(
    server: Portico, username: str = "alice", client_id: str = "", **changed: Any
) -> tuple[str, dict[str, Any]]:
    """(client_id, token answer) after the whole way."""
    known = client_id or registered(server)["client_id"]
    url, raw = question(server, known, **changed)
    with Visitor(server.url, username) as visitor:
        found = callback(visitor.visit(url))
    assert found["state"] == "xyz" and found["iss"] == server.url
    answer = redeem(server, known, found["code"], raw)
    assert answer.status_code == 200, answer.text
    return known, answer.json()


def redeem(
    server: Portico, client_id: str, code: str, raw: str, **changed: Any
) -> httpx2.Response:
    """Trade a code for tokens."""
    form = {
        "grant_type": "authorization_code",
        "client_id": client_id,
        "code": code,
        "redirect_uri": BACK,
        "code_verifier": raw,
        **changed,
    }
    return token(server, **form)


@pytest.mark.spec("RFC 8414 3.3: issuer identical, no redirect, no 5xx")
@pytest.mark.spec("RFC 8414 2: token_endpoint_auth_methods_supported has none")
@pytest.mark.spec("SEC: code_challenge_methods_supported S256")
@pytest.mark.spec("RFC 8414 2")
@pytest.mark.spec("RFC 9207 2.3")
def test_the_metadata_says_what_works(server: Portico) -> None:
    """RFC 8414 2, 3.3; RFC 9207 2.3; MCP DISC."""
    found = metadata_of(server.url)
    assert found["issuer"] == server.url
    assert found["code_challenge_methods_supported"] == ["S256"]
    assert "none" in found["token_endpoint_auth_methods_supported"]
    assert found["authorization_response_iss_parameter_supported"] is True
    assert found["response_types_supported"] == ["code"]
    for name, value in found.items():
        if name.endswith(("_endpoint", "_uri")):
            assert value.startswith(f"{server.url}/oauth/")
            assert HTTP.get(value).status_code in (200, 302, 405)
    for probe in ("openid-configuration", "oauth-authorization-server/mcp", "x"):
        answer = HTTP.get(f"{server.url}/.well-known/{probe}")
        assert answer.status_code in (200, 404)


@pytest.mark.spec("OAuth 2.1 3.2.3: no-store, Bearer, expires_in, scope")
@pytest.mark.spec("RFC 8707 2: tokens bound to the resource")
@pytest.mark.spec("OAuth 2.1 4.1")
@pytest.mark.spec("RFC 7636 4")
@pytest.mark.spec("RFC 9207 2")
def test_a_person_signs_a_client_in(server: Portico) -> None:
    """OAuth 2.1 4.1; the token is one of the one list."""
    client_id, answer = signed_in(server)
    assert answer["token_type"] == "Bearer" and answer["scope"] == "mcp"
    assert answer["expires_in"] == 1800 and answer["refresh_token"]
    assert Wire(server, answer["access_token"]).text("look") == "alice looks at shelf"
    rows = IssuedToken.objects.filter(client_id=client_id)
    assert {(r.kind, r.door) for r in rows} == {
        ("access", "authorization_code"),
        ("refresh", "authorization_code"),
    }
    kept = json.dumps(list(rows.values()), default=str)
    assert answer["refresh_token"] not in kept


@pytest.mark.spec("MCP BP Confused Deputy: consent per client")
def test_consent_is_remembered_per_client_and_scope(server: Portico) -> None:
    """ours: asked once; a new scope or prompt=consent asks again."""
    client_id, _ = signed_in(server)
    with Visitor(server.url, "alice") as visitor:
        visitor.visit(question(server, client_id)[0])
        assert not any("asks for access" in page for page in visitor.seen)
        visitor.visit(question(server, client_id, scope="mcp User.Write")[0])
        assert sum("asks for access" in page for page in visitor.seen) == 1
        visitor.visit(question(server, client_id, prompt="consent")[0])
        assert sum("asks for access" in page for page in visitor.seen) == 2


@pytest.mark.spec("MCP AUTH Step-Up")
def test_step_up_opens_a_sensitive_tool(server: Portico) -> None:
    """MCP AUTH, Step-Up: the challenge's scopes are enough."""
    client_id, answer = signed_in(server)
    narrow = Wire(server, answer["access_token"])
    assert "erase" in narrow.tools()
    challenge = narrow.call("erase").headers["www-authenticate"]
    wanted = challenge.split('scope="')[1].split('"')[0]
    _, wider = signed_in(server, client_id=client_id, scope=wanted)
    assert Wire(server, wider["access_token"]).text("erase") == "erased"


@pytest.mark.spec("OIDC Core 3.1.2.1: prompt")
def test_prompt_none_and_login(server: Portico) -> None:
    """OIDC Core 3.1.2.1, 3.1.2.6: as the SDKs' clients may send it."""
    client_id = registered(server)["client_id"]
    with Visitor(server.url, "alice") as visitor:
        silent = question(server, client_id, prompt="none")[0]
        assert visitor.visit(silent).startswith(server.url), "never allowed before"
        visitor.visit(question(server, client_id)[0])
        assert "code" in callback(visitor.visit(silent))
        more = question(server, client_id, prompt="none", scope="mcp User.Read")[0]
        found = callback(visitor.visit(more))
        assert found["error"] == "interaction_required" and found["iss"] == server.url
        before = len(visitor.seen)
        again = question(server, client_id, prompt="login")[0]
        assert "code" in callback(visitor.visit(again))
        assert any("Password" in page for page in visitor.seen[before:])


@pytest.mark.spec("OAuth 2.1 3.2.3: granted scope is returned")
def test_scopes_beyond_the_roles_are_not_given(server: Portico) -> None:
    """OAuth 2.1 3.2.3: a subset is granted and named."""
    asked = "mcp Admin.Write offline_access"
    _, answer = signed_in(server, scope=asked)
    assert answer["scope"] == "mcp"


@pytest.mark.spec("RFC 6749 4.1.2.1: state echoed on errors")
@pytest.mark.spec("RFC 9207 2")
def test_denying_returns_with_the_issuer_and_no_code(server: Portico) -> None:
    """RFC 6749 4.1.2.1, RFC 9207 2 (W2)."""
    client_id = registered(server)["client_id"]
    with Visitor(server.url, "alice", "deny") as visitor:
        found = callback(visitor.visit(question(server, client_id)[0]))
    assert found["error"] == "access_denied" and "code" not in found
    assert (found["state"], found["iss"]) == ("xyz", server.url)
    assert AuditEvent.objects.filter(action="consent.denied").exists()


WRONG: list[dict[str, Any]] = [
    {"client_id": "unknown"},
    {"client_id": None},
    {"redirect_uri": "http://127.0.0.1:43117/other"},
    {"redirect_uri": "https://evil.example/callback"},
    {"redirect_uri": "http://127.0.0.1:43117/callback#f"},
    {"redirect_uri": "http://u@127.0.0.1:43117/callback"},
    {"response_type": "token"},
    {"response_type": None},
    {"code_challenge": None, "code_challenge_method": None},
    {"code_challenge_method": "plain"},
    {"resource": "https://elsewhere.example/mcp"},
    {"resource": "not a uri"},
    {"scope": "No.Such"},
    {"scope": "Admin.Write"},
    {"state": ["a", "b"]},
    {"client_id": "a\x00b"},
]


@pytest.mark.spec("OAuth 2.1 4.1.2.1: no redirect to unknown clients or URIs")
@pytest.mark.spec("OAuth 2.1 2.3.1: exact redirect match, no fragment")
@pytest.mark.spec("OAuth 2.1 3.1: repeated parameters are an error")
@pytest.mark.spec("OAuth 2.1 7.12.2")
@pytest.mark.spec("RFC 8707 2.1")
@pytest.mark.parametrize("changed", WRONG, ids=str)
def test_a_wrong_question_gets_a_page_and_no_redirect(
    server: Portico, changed: dict[str, Any]
) -> None:
    """OAuth 2.1 7.12: nobody is redirected anywhere without deciding."""
    client_id = registered(server)["client_id"]
    url, _ = question(server, **{"client_id": client_id, **changed})
    with Visitor(server.url, "alice") as visitor:
        end = visitor.visit(url)
        assert end.startswith(server.url)
        assert visitor.page.status_code == 400
        assert "did not work" in visitor.page.text


@pytest.mark.spec("OAuth 2.1 7.12.2: sign in before any redirect")
def test_nobody_is_redirected_before_signing_in(server: Portico) -> None:
    """OAuth 2.1 7.12.2 (trap T12): wrong or right, first the sign-in page."""
    client_id = registered(server)["client_id"]
    for changed in ({}, {"scope": "No.Such"}, {"prompt": "none"}):
        answer = HTTP.get(question(server, client_id, **changed)[0])
        assert answer.status_code == 302
        assert answer.headers["location"].startswith("/accounts/login/")


@pytest.mark.spec("OAuth 2.1 7.11")
def test_the_pages_cannot_be_framed_and_run_no_scripts(server: Portico) -> None:
    """OAuth 2.1 7.11: clickjacking; strict CSP."""
    client_id = registered(server, client_name="<script>alert(1)</script>")["client_id"]
    with Visitor(server.url, "alice", "neither") as visitor:
        url, _ = question(server, client_id)
        visitor.visit(url)
        page = visitor.page
    policy = page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy and "default-src 'none'" in policy
    assert "form-action 'self' http://127.0.0.1:43117" in policy
    assert page.headers["x-frame-options"] == "DENY"
    assert "<script>" not in page.text and "&lt;script&gt;" in page.text


@pytest.mark.spec("OAuth 2.1 4.1.3")
def test_a_replayed_code_ends_what_it_bought(server: Portico) -> None:
    """OAuth 2.1 4.1.3."""
    client_id = registered(server)["client_id"]
    url, raw = question(server, client_id)
    with Visitor(server.url, "alice") as visitor:
        code = callback(visitor.visit(url))["code"]
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


@pytest.mark.spec("OAuth 2.1 4.1.3: code bound to client, redirect, challenge")
@pytest.mark.spec("RFC 7636 4.6")
@pytest.mark.parametrize(
    "changed",
    [
        {"code_verifier": "x" * 43},
        {"code_verifier": None},
        {"code": "unknown"},
        {"redirect_uri": "http://127.0.0.1:43117/elsewhere"},
        {"client_id": "another"},
    ],
    ids=str,
)
def test_a_code_is_bound_to_its_request(
    server: Portico, changed: dict[str, Any]
) -> None:
    """RFC 7636 4.6; OAuth 2.1 4.1.3."""
    client_id = registered(server)["client_id"]
    url, raw = question(server, client_id)
    with Visitor(server.url, "alice") as visitor:
        code = callback(visitor.visit(url))["code"]
    fields = {"client_id": client_id, "code": code, "raw": raw}
    form = {k: v for k, v in changed.items() if k not in fields}
    fields |= {k: v for k, v in changed.items() if k in fields}
    answer = redeem(server, **fields, **form)
    assert answer.status_code in (400, 401)
    assert answer.json()["error"] in (
        "invalid_grant",
        "invalid_client",
        "invalid_request",
    )


@pytest.mark.spec("OAuth 2.1 10.2: redirect_uri optional at the token endpoint")
def test_the_redirect_uri_may_be_left_out_at_the_token_endpoint(
    server: Portico,
) -> None:
    """OAuth 2.1 10.2."""
    client_id = registered(server)["client_id"]
    url, raw = question(server, client_id)
    with Visitor(server.url, "alice") as visitor:
        code = callback(visitor.visit(url))["code"]
    answer = redeem(server, client_id, code, raw, redirect_uri=None)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_somebody_deactivated_on_the_way_gets_nothing(server: Portico) -> None:
    """Show 6: between the decision and the token; W7."""
    person("rupert", "User")
    client_id = registered(server)["client_id"]
    url, raw = question(server, client_id)
    with Visitor(server.url, "rupert") as visitor:
        code = callback(visitor.visit(url))["code"]
    User.objects.filter(username="rupert").update(is_active=False)
    answer = redeem(server, client_id, code, raw)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


def refresh(server: Portico, client_id: str, raw: str, **more: Any) -> httpx2.Response:
    """Use a refresh token."""
    form = {"grant_type": "refresh_token", "client_id": client_id, "refresh_token": raw}
    return token(server, **form, **more)


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


def made(*arguments: str) -> dict[str, str]:
    """A client from the command line."""
    import io

    out = io.StringIO()
    call_command("add_client", *arguments, stdout=out)
    found: dict[str, str] = json.loads(out.getvalue())
    return found


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
    refused = token(server, grant_type="client_credentials", client_id=public)
    assert refused.status_code in (400, 401)


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


REAL: dict[str, dict[str, Any]] = {
    "Claude Code": {
        "client_name": "Claude Code (portico)",
        "redirect_uris": ["http://localhost:3118/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "application_type": "native",
    },
    "VS Code": {
        "client_name": "Visual Studio Code",
        "client_uri": "https://code.visualstudio.com",
        "grant_types": [
            "authorization_code",
            "refresh_token",
            "urn:ietf:params:oauth:grant-type:device_code",
        ],
        "response_types": ["code"],
        "redirect_uris": [
            "https://insiders.vscode.dev/redirect",
            "https://vscode.dev/redirect",
            "http://127.0.0.1/",
            "http://127.0.0.1:33418/",
        ],
        "token_endpoint_auth_method": "none",
        "application_type": "native",
    },
    "Cursor": {
        "client_name": "Cursor",
        "redirect_uris": [
            "cursor://anysphere.cursor-mcp/oauth/callback",
            "https://www.cursor.com/agents/mcp/oauth/callback",
            "http://localhost:8787/callback",
        ],
        "token_endpoint_auth_method": "none",
    },
    "Inspector": {
        "client_name": "MCP Inspector",
        "redirect_uris": ["http://localhost:6274/oauth/callback"],
        "token_endpoint_auth_method": "none",
        "application_type": "native",
        "scope": "",
    },
    "unspecified": {"redirect_uris": ["https://app.example/cb"]},
}


@pytest.mark.spec("RFC 7591 3.2.1")
@pytest.mark.parametrize("name", REAL)
def test_what_real_clients_register_is_accepted(server: Portico, name: str) -> None:
    """RFC 7591 3.2.1; mcp-auth client table."""
    answer = HTTP.post(f"{server.url}/oauth/register", json=REAL[name])
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert found["redirect_uris"] == REAL[name]["redirect_uris"]
    assert isinstance(found["client_id_issued_at"], int)
    assert None not in found.values() and "" not in found.values()
    secret = found["token_endpoint_auth_method"] != "none"
    assert ("client_secret" in found) is secret
    assert (found.get("client_secret_expires_at") == 0) is secret
    assert {"grant_types", "response_types"} <= set(found)


BAD_CLIENTS: list[Any] = [
    {},
    [],
    "text",
    {"redirect_uris": []},
    {"redirect_uris": "https://a.example"},
    {"redirect_uris": [7]},
    {"redirect_uris": ["javascript:alert(1)"]},
    {"redirect_uris": ["http://evil.example/cb"]},
    {"redirect_uris": ["https://a.example/cb#f"]},
    {"redirect_uris": ["https://*.a.example/cb"]},
    {"redirect_uris": ["https://u:p@a.example/cb"]},
    {"redirect_uris": ["custom:/cb"]},
    {"redirect_uris": ["data:text/html,x"]},
    {"redirect_uris": ["https://a.example/c b"]},
    {"redirect_uris": ["https://["]},
    {"redirect_uris": [f"https://a.example/{n}" for n in range(50)]},
    {"redirect_uris": ["https://a.example"], "token_endpoint_auth_method": "magic"},
    {"redirect_uris": ["https://a.example"], "grant_types": ["client_credentials"]},
    {"redirect_uris": ["https://a.example"], "grant_types": "authorization_code"},
    {"redirect_uris": ["https://a.example"], "response_types": ["token"]},
    {"redirect_uris": ["https://a.example"], "client_name": ["x"]},
    {"redirect_uris": ["https://a.example"], "client_name": "a\x00b"},
    {"redirect_uris": ["https://a.example"], "client_name": "x" * 20_000},
]


@pytest.mark.spec("OAuth 2.1 2.3.1")
@pytest.mark.parametrize("body", BAD_CLIENTS, ids=lambda b: str(b)[:60])
def test_malformed_registrations_are_refused(server: Portico, body: Any) -> None:
    """RFC 7591 3.2.2; OAuth 2.1 2.3.1; never a 500, nothing stored."""
    before = OAuthClient.objects.count()
    answer = HTTP.post(f"{server.url}/oauth/register", json=body)
    assert answer.status_code == 400, answer.text
    known = ("invalid_client_metadata", "invalid_redirect_uri")
    assert answer.json()["error"] in known and answer.json()["error_description"]
    assert OAuthClient.objects.count() == before


@pytest.mark.spec("RFC 7591 5: no privileges by registration")
def test_registration_never_gives_more_than_signing_people_in(server: Portico) -> None:
    """RFC 7591 5: unregistered privileges are impossible."""
    greedy = registered(
        server,
        grant_types=["authorization_code", "client_credentials", "password"],
        skip_authorization=True,
        service_account=1,
        client_id="chosen",
    )
    assert greedy["grant_types"] == ["authorization_code"]
    assert greedy["client_id"] != "chosen"
    row = OAuthClient.objects.get(client_id=greedy["client_id"])
    assert not row.skip_authorization and row.service_account is None


def test_a_blocked_client_is_as_unknown(server: Portico) -> None:
    """ours: block in the admin."""
    client_id, answer = signed_in(server)
    OAuthClient.objects.filter(client_id=client_id).update(blocked=True)
    refused = refresh(server, client_id, answer["refresh_token"])
    assert refused.json()["error"] == "invalid_client"
    with Visitor(server.url, "alice") as visitor:
        assert visitor.visit(question(server, client_id)[0]).startswith(server.url)


class Storage:
    """Where the SDK's client keeps what it has."""

    def __init__(self) -> None:
        self.tokens: Any = None
        self.info: Any = None

    async def get_tokens(self) -> Any:
        """As kept."""
        return self.tokens

    async def set_tokens(self, tokens: Any) -> None:
        """Keep."""
        self.tokens = tokens

    async def get_client_info(self) -> Any:
        """As kept."""
        return self.info

    async def set_client_info(self, client_info: Any) -> None:
        """Keep."""
        self.info = client_info


def provider(server: Portico, storage: Storage, visits: list[str]) -> Any:
    """The SDK's OAuth client with the scripted person for a browser."""
    from mcp.client.auth import AuthorizationCodeResult

    async def redirect(url: str) -> None:
        with Visitor(server.url, "alice") as visitor:
            visits.append(visitor.visit(url))

    async def returned() -> Any:
        found = callback(visits[-1])
        return AuthorizationCodeResult(
            code=found["code"], state=found["state"], iss=found["iss"]
        )

    metadata = OAuthClientMetadata(
        client_name="SDK", redirect_uris=[AnyUrl("http://localhost:3030/callback")]
    )
    return OAuthClientProvider(server.mcp_url, metadata, storage, redirect, returned)


async def twice(server: Portico, auth: Any) -> tuple[str, str]:
    """A call, and another once the token has expired; the tokens used."""
    used = []
    for _ in range(2):
        assert "alice" in await sdk_call(server, auth)
        used.append(auth.context.current_tokens.access_token)
        auth.context.token_expiry_time = 1.0
    return used[0], used[1]


async def sdk_call(server: Portico, auth: Any) -> str:
    """One call of whoami."""
    async with httpx2.AsyncClient(auth=auth, timeout=30) as http:
        transport = streamable_http_client(server.mcp_url, http_client=http)
        async with Client(transport) as client:
            answer = await client.call_tool("whoami", {})
    return str(answer.content[0].text)  # type: ignore[union-attr]


@pytest.fixture
def storage() -> Iterator[Storage]:
    """Empty."""
    yield Storage()


def test_the_python_sdk_signs_a_person_in(server: Portico, storage: Storage) -> None:
    """Show 1: discovery, registration, sign-in, call, refresh, refused at the end."""
    visits: list[str] = []
    auth = provider(server, storage, visits)
    first, second = asyncio.run(twice(server, auth))
    assert first != second and len(visits) == 1
    IssuedToken.objects.filter(client_id=storage.info.client_id).revoke(
        actor="carol", reason="taken away"
    )
    live = Wire(server, storage.tokens.access_token)
    assert live.post("ping").status_code == 401


def test_an_unknown_scope_is_named_on_the_page(server: Portico) -> None:
    """RFC 6749 4.1.2.1: refused before anybody is sent anywhere, and said which."""
    client_id = registered(server)["client_id"]
    with Visitor(server.url, "alice") as visitor:
        asked = question(server, client_id, scope="mcp Nothing.Known")[0]
        assert visitor.visit(asked).startswith(server.url)
        assert "no such scope here: Nothing.Known." in visitor.seen[-1]
