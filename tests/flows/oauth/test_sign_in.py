"""Sign-in of clients: metadata, authorization request and redirect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from accounts.models import IssuedToken
from tests.support.mcp_client import HTTP, McpClient
from tests.support.oauth_client import (
    approve_client,
    authorize_url,
    register_client,
    signed_in,
)
from tests.support.server import Portico
from tests.support.visitor import Visitor, callback, metadata_of

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]


@pytest.mark.spec("RFC 8414 3.3: issuer identical, no redirect, no 5xx")
@pytest.mark.spec("RFC 8414 2: token_endpoint_auth_methods_supported has none")
@pytest.mark.spec("SEC: code_challenge_methods_supported S256")
@pytest.mark.spec("RFC 8414 2")
@pytest.mark.spec("RFC 9207 2.3")
@pytest.mark.spec("CIMD 5: advertised while it is on")
@pytest.mark.spec("MCP AUTH Overview 5: RFC 8414 metadata")
@pytest.mark.spec("OAuth 2.1 10: no password, no implicit grant")
def test_the_metadata_is_complete_and_true(server: Portico) -> None:
    """RFC 8414 2, 3.3; RFC 9207 2.3; MCP DISC."""
    found = metadata_of(server.url)
    assert found["issuer"] == server.url
    assert found["code_challenge_methods_supported"] == ["S256"]
    assert "none" in found["token_endpoint_auth_methods_supported"]
    assert found["authorization_response_iss_parameter_supported"] is True
    assert found["response_types_supported"] == ["code"]
    assert found["client_id_metadata_document_supported"] is True
    assert not {"password", "implicit"} & set(found["grant_types_supported"])
    resource = HTTP.get(f"{server.url}/.well-known/oauth-protected-resource").json()
    assert resource["authorization_servers"] == [found["issuer"]]
    for name, value in found.items():
        if name.endswith(("_endpoint", "_uri")):
            assert value.startswith(f"{server.url}/oauth/")
            assert HTTP.get(value).status_code in (200, 302, 405)


PROBES = {
    "oauth-protected-resource": 200,
    "oauth-protected-resource/mcp": 200,
    "oauth-protected-resource/mcp/": 200,
    "oauth-authorization-server": 200,
    "oauth-authorization-server/mcp": 200,
    "openid-configuration": 404,
    "openid-configuration/mcp": 404,
    "oauth-protected-resource/else": 404,
    "x": 404,
}


@pytest.mark.spec("RFC 8414 3.3: issuer identical, no redirect, no 5xx")
@pytest.mark.spec("OIDC Discovery 3: incomplete metadata is refused")
@pytest.mark.parametrize(("probe", "status"), PROBES.items())
def test_metadata_probes_get_plain_answers(
    server: Portico, probe: str, status: int
) -> None:
    """RFC 8414 3; RFC 9728 3.1: no redirect, no 5xx, read only, CORS for all."""
    url = f"{server.url}/.well-known/{probe}"
    headers = {"mcp-protocol-version": "2026-07-28", "origin": "https://a.example"}
    answer = HTTP.get(url, headers=headers)
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == "*"
    if status == 200:
        assert answer.headers["content-type"] == "application/json"
        assert HTTP.head(url).status_code == 200
    for method in ("POST", "PUT", "DELETE"):
        assert HTTP.request(method, url).status_code == (405 if status == 200 else 404)


@pytest.mark.spec("OAuth 2.1 3.2.3: no-store, Bearer, expires_in, scope")
@pytest.mark.spec("RFC 8707 2: tokens bound to the resource")
@pytest.mark.spec("OAuth 2.1 4.1")
@pytest.mark.spec("RFC 7636 4")
@pytest.mark.spec("RFC 9207 2")
def test_a_user_signs_a_client_in(server: Portico) -> None:
    """OAuth 2.1 4.1; the token is in the list of issued tokens."""
    client_id, answer = signed_in(server)
    assert answer["token_type"] == "Bearer" and answer["scope"] == "mcp"
    assert answer["expires_in"] == 1800 and answer["refresh_token"]
    assert (
        McpClient(server, answer["access_token"]).text("look") == "alice looks at shelf"
    )
    rows = IssuedToken.objects.filter(client_id=client_id)
    assert {(r.kind, r.issued_via) for r in rows} == {
        ("access", "authorization_code"),
        ("refresh", "authorization_code"),
    }
    stored = json.dumps(list(rows.values()), default=str)
    assert answer["refresh_token"] not in stored


@pytest.mark.spec("MCP AUTH Step-Up")
def test_step_up_opens_a_sensitive_tool(server: Portico) -> None:
    """MCP AUTH, Step-Up: the challenge's scopes are enough."""
    client_id, answer = signed_in(server)
    narrow = McpClient(server, answer["access_token"])
    assert "erase" in narrow.tools()
    challenge = narrow.call("erase").headers["www-authenticate"]
    scopes = challenge.split('scope="')[1].split('"')[0]
    _, wider = signed_in(server, client_id=client_id, scope=scopes)
    assert McpClient(server, wider["access_token"]).text("erase") == "erased"


@pytest.mark.spec("OIDC Core 3.1.2.1: prompt")
def test_prompt_none_and_login(server: Portico) -> None:
    """OIDC Core 3.1.2.1, 3.1.2.6: as the SDKs' clients may send it."""
    client_id = approve_client(register_client(server)["client_id"])
    with Visitor(server.url, "alice") as visitor:
        silent = authorize_url(server, client_id, prompt="none")[0]
        assert visitor.visit(silent).startswith(server.url), "never allowed before"
        visitor.visit(authorize_url(server, client_id)[0])
        assert "code" in callback(visitor.visit(silent))
        more = authorize_url(server, client_id, prompt="none", scope="mcp User.Read")[0]
        found = callback(visitor.visit(more))
        assert found["error"] == "interaction_required" and found["iss"] == server.url
        before = len(visitor.seen)
        again = authorize_url(server, client_id, prompt="login")[0]
        assert "code" in callback(visitor.visit(again))
        assert any("Password" in page for page in visitor.seen[before:])


@pytest.mark.spec("OAuth 2.1 3.2.3: granted scope is returned")
def test_scopes_beyond_the_roles_are_not_granted(server: Portico) -> None:
    """OAuth 2.1 3.2.3: a subset is granted and named."""
    scopes = "mcp Admin.Write offline_access"
    _, answer = signed_in(server, scope=scopes)
    assert answer["scope"] == "mcp"


WRONG: list[dict[str, Any]] = [
    {"client_id": "unknown"},
    {"redirect_uri": "http://127.0.0.1:43117/other"},
    {"code_challenge": None, "code_challenge_method": None},
]


@pytest.mark.spec("OAuth 2.1 4.1.1: code and S256 only")
@pytest.mark.spec("OAuth 2.1 4.1.2.1: no redirect to unknown clients or URIs")
@pytest.mark.spec("OAuth 2.1 2.3.1: exact redirect match, no fragment")
@pytest.mark.spec("OAuth 2.1 3.1: repeated parameters are an error")
@pytest.mark.spec("OAuth 2.1 7.12.2")
@pytest.mark.spec("RFC 8707 2.1")
@pytest.mark.parametrize("changed", WRONG, ids=str)
def test_an_invalid_request_gets_a_page_and_no_redirect(
    server: Portico, changed: dict[str, Any]
) -> None:
    """OAuth 2.1 7.12: no redirect without the user's decision."""
    client_id = register_client(server)["client_id"]
    url, _ = authorize_url(server, **{"client_id": client_id, **changed})
    with Visitor(server.url, "alice") as visitor:
        end = visitor.visit(url)
        assert end.startswith(server.url)
        assert visitor.page.status_code == 400
        assert "Authorization failed" in visitor.page.text


@pytest.mark.spec("OAuth 2.1 7.12.2: sign in before any redirect")
def test_no_redirect_happens_before_sign_in(server: Portico) -> None:
    """OAuth 2.1 7.12.2: valid or not, the sign-in page is first."""
    client_id = register_client(server)["client_id"]
    for changed in ({}, {"scope": "No.Such"}, {"prompt": "none"}):
        answer = HTTP.get(authorize_url(server, client_id, **changed)[0])
        assert answer.status_code == 302
        assert answer.headers["location"].startswith("/accounts/login/")


def test_a_long_request_survives_the_sign_in_page(server: Portico) -> None:
    """Django does not redirect back to addresses over 2,048 characters."""
    client_id = register_client(server)["client_id"]
    state = "s" * 4_000
    with Visitor(server.url, "alice") as visitor:
        found = callback(
            visitor.visit(authorize_url(server, client_id, state=state)[0])
        )
    assert found["state"] == state and "code" in found


@pytest.mark.spec("OAuth 2.1 3.1: empty is omitted, unknown is ignored")
@pytest.mark.spec("RFC 8707 2: a default where none is named, repeats allowed")
@pytest.mark.parametrize(
    "changed",
    [
        {"resource": None},
        {"scope": "", "nonce": "n", "claims": "{}", "display": "page"},
    ],
    ids=str,
)
def test_unknown_and_missing_parameters_are_accepted(
    server: Portico, changed: dict[str, Any]
) -> None:
    """OAuth 2.1 3.1; RFC 8707 2; SEP-2207: `mcp` is the default scope."""
    parameters = json.loads(json.dumps(changed).replace("{}", server.mcp_url))
    _, answer = signed_in(server, **parameters)
    assert answer["scope"] == "mcp"
    assert McpClient(server, answer["access_token"]).allowed("look")
