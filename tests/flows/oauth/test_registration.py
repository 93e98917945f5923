"""Dynamic client registration (RFC 7591)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from accounts.models import OAuthClient
from tests.support.mcp_client import HTTP
from tests.support.oauth_client import (
    authorize_url,
    error_of,
    refresh,
    register_client,
    signed_in,
)
from tests.support.server import Portico
from tests.support.visitor import Visitor

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]


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


@pytest.mark.spec("RFC 7591 2: defaults")
@pytest.mark.spec("RFC 7591 3.2.1")
@pytest.mark.parametrize("name", REAL)
def test_registrations_of_real_clients_are_accepted(server: Portico, name: str) -> None:
    """RFC 7591 3.2.1."""
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
    metadata = REAL[name]
    method = metadata.get("token_endpoint_auth_method", "client_secret_basic")
    assert found["token_endpoint_auth_method"] == method
    assert found["grant_types"] == metadata.get("grant_types", ["authorization_code"])
    assert found["response_types"] == ["code"]
    assert found.get("application_type") == metadata.get("application_type")
    assert not found["client_id"].startswith("https://")


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
    {"redirect_uris": ["https://a.example"], "client_name": "\ud800"},
    {"redirect_uris": ["https://a.example"], "scope": "\ud800"},
    {"redirect_uris": ["http://127.1/cb"]},
    {"redirect_uris": ["http://localhost.evil.example/cb"]},
    {"redirect_uris": ["http://127.0.0.1:99999/cb"]},
    {"redirect_uris": ["https:///cb"]},
]


@pytest.mark.spec("OAuth 2.1 2.3.1")
@pytest.mark.parametrize("body", BAD_CLIENTS, ids=lambda b: str(b)[:60])
def test_malformed_registrations_are_refused(server: Portico, body: Any) -> None:
    """RFC 7591 3.2.2; OAuth 2.1 2.3.1; never a 500, nothing stored."""
    before = OAuthClient.objects.count()
    answer = HTTP.post(f"{server.url}/oauth/register", content=json.dumps(body))
    assert answer.status_code == 400, answer.text
    known = ("invalid_client_metadata", "invalid_redirect_uri")
    assert answer.json()["error"] in known and answer.json()["error_description"]
    assert OAuthClient.objects.count() == before


@pytest.mark.spec("RFC 7591 5: no privileges by registration")
def test_registration_gives_no_more_than_sign_in(server: Portico) -> None:
    """RFC 7591 5: unregistered privileges are impossible."""
    greedy = register_client(
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


def test_a_blocked_client_is_treated_as_unknown(server: Portico) -> None:
    client_id, answer = signed_in(server)
    OAuthClient.objects.filter(client_id=client_id).update(blocked=True)
    error_of = refresh(server, client_id, answer["refresh_token"])
    assert error_of.json()["error"] == "invalid_client"
    with Visitor(server.url, "alice") as visitor:
        assert visitor.visit(authorize_url(server, client_id)[0]).startswith(server.url)


def test_only_plain_text_is_echoed(server: Portico) -> None:
    """RFC 7591 3.2.1: no null, nothing that breaks a database or a client."""
    odd = {"contacts": [None, float("nan")], "logo_uri": ["x"], "client_uri": None}
    good = {"software_id": "s", "tos_uri": "", "policy_uri": "https://a.example/p"}
    body = {"redirect_uris": ["https://a.example/cb"] * 3, **odd, **good}
    answer = HTTP.post(f"{server.url}/oauth/register", content=json.dumps(body))
    found = answer.json()
    assert answer.status_code == 201, answer.text
    assert found["redirect_uris"] == ["https://a.example/cb"]
    assert found["software_id"] == "s" and found["policy_uri"]
    assert not {"contacts", "logo_uri", "client_uri", "tos_uri"} & set(found)
    registration = register_client(server, contacts=["a@a.example"])
    assert registration["contacts"] == ["a@a.example"]


@pytest.mark.parametrize(
    ("size", "status", "error"),
    [(20_000, 400, "invalid_client_metadata"), (3_000_000, 413, "invalid_request")],
)
def test_a_document_too_large_is_refused(
    server: Portico, size: int, status: int, error: str
) -> None:
    """RFC 7591 5: also without a Content-Length."""
    body = json.dumps({"redirect_uris": ["https://a.example"], "a": "x" * size})
    chunks = iter([body.encode()])
    answer = HTTP.post(f"{server.url}/oauth/register", content=chunks)
    assert error_of(answer) == (status, error)
