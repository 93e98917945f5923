"""POST /oauth/register: the metadata of known clients, and metadata that is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from accounts.models import OAuthClient

pytestmark = pytest.mark.django_db


def register(metadata: Any) -> Any:
    body = json.dumps(metadata)
    return Client().post("/oauth/register", body, content_type="application/json")


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
def test_registrations_of_real_clients_are_accepted(name: str) -> None:
    """RFC 7591 3.2.1."""
    answer = register(REAL[name])
    assert answer.status_code == 201, answer.content
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
def test_malformed_registrations_are_refused(body: Any) -> None:
    """RFC 7591 3.2.2; OAuth 2.1 2.3.1; never a 500, nothing stored."""
    before = OAuthClient.objects.count()
    answer = register(body)
    assert answer.status_code == 400, answer.content
    known = ("invalid_client_metadata", "invalid_redirect_uri")
    assert answer.json()["error"] in known and answer.json()["error_description"]
    assert OAuthClient.objects.count() == before


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example\\.claude.ai/cb",
        "https://claude.ai%2eevil.example/cb",
        "https://cl\u0430ude.ai/cb",
        "https://claude.ai\uff0eevil.example/cb",
        f"{'a' * 200}.app://claude.ai/cb",
    ],
)
def test_a_host_that_browsers_parse_differently_is_not_registered(
    uri: str,
) -> None:
    """OAuth 2.1 2.3.1: the page would show another host than the browser opens."""
    body = {"redirect_uris": [uri], "token_endpoint_auth_method": "none"}
    answer = register(body)
    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid_redirect_uri"
