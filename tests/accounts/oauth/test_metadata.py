"""Authorization Server Metadata (RFC 8414)."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts.oauth.metadata import document

WELL_KNOWN = "/.well-known/oauth-authorization-server"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
METHODS = ["none", "client_secret_post", "client_secret_basic", "private_key_jwt"]
ISSUER = "https://portico.example"
COMPLETE = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/oauth/authorize",
    "token_endpoint": f"{ISSUER}/oauth/token",
    "revocation_endpoint": f"{ISSUER}/oauth/revoke",
    "introspection_endpoint": f"{ISSUER}/oauth/introspect",
    "device_authorization_endpoint": f"{ISSUER}/oauth/device",
    "registration_endpoint": f"{ISSUER}/oauth/register",
    "jwks_uri": f"{ISSUER}/oauth/jwks.json",
    "token_endpoint_auth_signing_alg_values_supported": [
        "ES256",
        "ES384",
        "RS256",
        "PS256",
        "RS512",
        "EdDSA",
    ],
    "scopes_supported": ["mcp"],
    "response_types_supported": ["code"],
    "response_modes_supported": ["query"],
    "grant_types_supported": [
        "authorization_code",
        "refresh_token",
        "client_credentials",
        DEVICE,
    ],
    "code_challenge_methods_supported": ["S256"],
    "token_endpoint_auth_methods_supported": METHODS,
    "revocation_endpoint_auth_methods_supported": METHODS,
    "introspection_endpoint_auth_methods_supported": METHODS[1:],
    "authorization_response_iss_parameter_supported": True,
    "client_id_metadata_document_supported": True,
}


@pytest.fixture(autouse=True)
def issuer(settings: Any) -> None:
    settings.ISSUER_URL = ISSUER
    settings.CLIENT_REGISTRATION = "open"


@pytest.mark.spec("RFC 8414 2")
def test_the_metadata_is_complete() -> None:
    assert document() == COMPLETE


@pytest.mark.parametrize(
    ("switch", "named"), [("open", True), ("token", True), ("off", False)]
)
def test_registration_is_named_unless_it_is_off(
    settings: Any, switch: str, named: bool
) -> None:
    settings.CLIENT_REGISTRATION = switch
    assert ("registration_endpoint" in document()) is named


def test_the_switch_of_metadata_documents_is_told(settings: Any) -> None:
    toolkit = {**settings.OAUTH2_PROVIDER, "CIMD_ENABLED": False}
    settings.OAUTH2_PROVIDER = toolkit
    assert document()["client_id_metadata_document_supported"] is False


@pytest.mark.spec("RFC 8414 3")
@pytest.mark.parametrize("path", [WELL_KNOWN, f"{WELL_KNOWN}/mcp"])
def test_both_addresses_answer_the_same(path: str) -> None:
    response = Client().get(path)
    assert (response.status_code, response.json()) == (200, COMPLETE)
    assert response["Cache-Control"] == "public, max-age=60"
    assert response["Content-Type"] == "application/json"
    assert Client().head(path).status_code == 200


@pytest.mark.parametrize("strict", [True, False])
def test_a_post_is_refused_for_its_method(strict: bool) -> None:
    """Not for a CSRF token, which a program has not."""
    response = Client(enforce_csrf_checks=strict).post(WELL_KNOWN)
    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")
