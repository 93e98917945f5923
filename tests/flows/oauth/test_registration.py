"""Dynamic client registration (RFC 7591)."""

from __future__ import annotations

import json

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
