"""Dynamic client registration (RFC 7591), and cleaning up."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.hashers import check_password
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from accounts.errors import InvalidClientMetadata
from accounts.models import AuditEvent, OAuthClient, User
from accounts.models.oauth import DEVICE_GRANT
from accounts.oauth.clients import register as module
from accounts.oauth.clients.register import client_columns, register
from accounts.tokens.issue import issue_tokens
from tests.support.model_rows import events_of

pytestmark = pytest.mark.django_db
URI = "https://a.example/cb"
BODY: dict[str, Any] = {"redirect_uris": [URI]}


def post(body: dict[str, Any], **headers: Any) -> Any:
    path = "/oauth/register"
    return Client().post(path, body, content_type="application/json", **headers)


@pytest.mark.spec("RFC 7591 3")
def test_the_registration_switch(settings: Any) -> None:
    """RFC 7591 3: open, with an initial access token, off."""
    body = {"redirect_uris": ["https://a.example/cb"]}
    assert post(body).status_code == 201
    settings.CLIENT_REGISTRATION = "token"
    settings.REGISTRATION_TOKEN = "initial-access-token-1"
    assert post(body).status_code == 401
    bad = {"HTTP_AUTHORIZATION": "Bearer wrong"}
    assert post(body, **bad).status_code == 401
    good = {"HTTP_AUTHORIZATION": "Bearer initial-access-token-1"}
    assert post(body, **good).status_code == 201
    settings.CLIENT_REGISTRATION = "off"
    assert post(body, **good).status_code == 403
    found = Client().get("/.well-known/oauth-authorization-server").json()
    assert "registration_endpoint" not in found
    assert AuditEvent.objects.filter(action="client.registered").exists()


@pytest.mark.spec("RFC 7591 5: unused registrations expire")
def test_unused_clients_are_purged_and_used_ones_kept(alice: User) -> None:
    """A client with a live token is never deleted."""
    body = {"redirect_uris": ["https://a.example/cb"]}
    idle, used = register(body)[0], register(body)[0]
    issue_tokens(alice, issued_via="command", client_id=used.client_id)
    old = timezone.now() - timedelta(days=60)
    OAuthClient.objects.filter(pk__in=[idle.pk, used.pk]).update(created=old)
    fresh = register(body)[0]
    call_command("purge")
    left = set(OAuthClient.objects.values_list("pk", flat=True))
    assert idle.pk not in left and {used.pk, fresh.pk} <= left


# What is registered


def test_a_registration_follows_the_rules_of_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of the admin and of add_client."""
    grants = [*module.REGISTRABLE_GRANTS, "client_credentials"]
    monkeypatch.setattr(module, "REGISTRABLE_GRANTS", grants)
    wanted = {"grant_types": ["authorization_code", "client_credentials"]}
    with pytest.raises(InvalidClientMetadata, match="needs a service account"):
        client_columns({**BODY, **wanted})


@pytest.mark.spec("RFC 7591 2")
@pytest.mark.parametrize(
    ("data", "columns"),
    [
        ({}, {}),
        ({"client_name": "A\nb"}, {"name": "A b"}),
        ({"client_name": "n" * 255}, {"name": "n" * 255}),
        ({"client_name": None}, {}),
        (
            {"token_endpoint_auth_method": "client_secret_post"},
            {"token_endpoint_auth_method": "client_secret_post"},
        ),
        (
            {"token_endpoint_auth_method": "none"},
            {"token_endpoint_auth_method": "none", "client_type": "public"},
        ),
        ({"token_endpoint_auth_method": None}, {}),
        ({"redirect_uris": [URI, URI]}, {}),
        (
            {"redirect_uris": ["http://localhost/b", URI]},
            {"redirect_uris": f"http://localhost/b {URI}"},
        ),
        (
            {"redirect_uris": [f"{URI}{n}" for n in range(10)]},
            {"redirect_uris": " ".join(f"{URI}{n}" for n in range(10))},
        ),
        (
            {"grant_types": [DEVICE_GRANT, "refresh_token", "authorization_code"]},
            {"grant_types": ["authorization_code", "refresh_token", DEVICE_GRANT]},
        ),
        ({"grant_types": ["client_credentials", "password", "authorization_code"]}, {}),
        ({"response_types": ["token", "code"]}, {}),
        ({"skip_authorization": True, "service_account": 1, "client_id": "x"}, {}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_the_columns_of_a_registration(
    data: dict[str, Any], columns: dict[str, Any]
) -> None:
    assert client_columns({**BODY, **data}) == {
        "name": "",
        "redirect_uris": URI,
        "token_endpoint_auth_method": "client_secret_basic",
        "client_type": "confidential",
        "authorization_grant_type": "authorization-code",
        "grant_types": ["authorization_code"],
        **columns,
    }


METADATA, REDIRECT = "invalid_client_metadata", "invalid_redirect_uri"


@pytest.mark.spec("RFC 7591 3.2.2")
@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"token_endpoint_auth_method": "private_key_jwt"}, METADATA),
        ({"token_endpoint_auth_method": "magic"}, METADATA),
        ({"client_name": "n" * 256}, METADATA),
        ({"client_name": ["x"]}, METADATA),
        ({"redirect_uris": None}, REDIRECT),
        ({"redirect_uris": []}, REDIRECT),
        ({"redirect_uris": URI}, REDIRECT),
        ({"redirect_uris": {URI: 1}}, REDIRECT),
        ({"redirect_uris": [f"{URI}{n}" for n in range(11)]}, REDIRECT),
        ({"redirect_uris": [URI, "http://evil.example/cb"]}, REDIRECT),
        ({"redirect_uris": [7]}, REDIRECT),
        ({"grant_types": "authorization_code"}, METADATA),
        ({"grant_types": ["refresh_token"]}, METADATA),
        ({"grant_types": ["client_credentials"]}, METADATA),
        ({"response_types": "code"}, METADATA),
        ({"response_types": ["token"]}, METADATA),
    ],
    ids=lambda value: str(value)[:60],
)
def test_malformed_metadata_is_refused(data: dict[str, Any], error: str) -> None:
    response = post({**BODY, **data})
    assert response.status_code == 400 and response.json()["error"] == error
    assert response.json()["error_description"]
    assert response["Cache-Control"] == "no-store"
    assert not OAuthClient.objects.exists() and not events_of("client.registered")


@pytest.mark.spec("RFC 7591 3.2.1")
def test_a_confidential_client_gets_its_secret_once() -> None:
    before = int(time.time())
    response = post({**BODY, "client_name": "Notes"}, REMOTE_ADDR="192.0.2.7")
    body = response.json()
    assert response.status_code == 201
    assert (response["Cache-Control"], response["Pragma"]) == ("no-store", "no-cache")
    secret, issued = body.pop("client_secret"), body.pop("client_id_issued_at")
    [row] = OAuthClient.objects.all()
    assert body == {
        "client_id": row.client_id,
        "redirect_uris": [URI],
        "grant_types": ["authorization_code"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "client_secret_basic",
        "client_name": "Notes",
        "client_secret_expires_at": 0,
    }
    assert before <= issued <= time.time() and type(issued) is int
    assert len(secret) == 64 and len(row.client_id) == 32
    assert row.client_secret != secret and check_password(secret, row.client_secret)
    assert row.registration_source == "dcr" and not row.verified
    assert not row.skip_authorization and row.service_account is None
    [event] = events_of("client.registered")
    assert (event.object, event.client_id) == ("client Notes", row.client_id)
    assert (event.actor, event.address) == ("", "192.0.2.7")
    assert event.subject == f"oauthclient:{row.pk}"


def test_a_public_client_gets_no_secret() -> None:
    body = post({**BODY, "token_endpoint_auth_method": "none"}).json()
    assert not {"client_secret", "client_secret_expires_at", "client_name"} & set(body)
    row = OAuthClient.objects.get()
    assert row.client_type == "public" and check_password("", row.client_secret)


ECHOED = (
    "application_type client_uri logo_uri policy_uri software_id software_version "
    "tos_uri"
).split()


@pytest.mark.parametrize("name", ECHOED)
def test_a_known_member_is_returned_and_stored(name: str) -> None:
    assert post({**BODY, name: "text"}).json()[name] == "text"
    assert OAuthClient.objects.get().registered == {name: "text"}
    for odd in ("", None, 7, ["x"]):
        assert name not in post({**BODY, name: odd}).json()


@pytest.mark.parametrize(
    ("contacts", "kept"),
    [(["a@a.example"], True), ([], True), ("a@a.example", False), (["a", 7], False)],
    ids=str,
)
def test_contacts_are_a_list_of_texts(contacts: Any, kept: bool) -> None:
    body = post({**BODY, "contacts": contacts, "scope": "mcp"}).json()
    assert (body.get("contacts") == contacts) is kept
    assert body["scope"] == "mcp" and "jwks_uri" not in body


@pytest.mark.parametrize(
    ("requested", "registered"),
    [
        ("admin superuser * mcp", "mcp"),
        ("User.Read  mcp User.Read", "User.Read mcp"),
        ("openid profile offline_access", None),
        ("admin", None),
        ("", None),
        (["mcp"], None),
        (None, None),
    ],
    ids=str,
)
def test_the_scope_that_is_returned_exists(requested: Any, registered: Any) -> None:
    """RFC 7591 3.2.1"""
    body = post({**BODY, "scope": requested}).json()
    assert body.get("scope") == registered
    assert OAuthClient.objects.get().registered.get("scope") == registered


def test_an_unknown_member_is_not_returned() -> None:
    assert "jwks_uri" not in post({**BODY, "jwks_uri": "https://a.example/j"}).json()


# The body and the endpoint


def raw_post(body: bytes) -> Any:
    path = "/oauth/register"
    return Client().post(path, body, content_type="application/json")


def body_of(size: int) -> bytes:
    rest = len(json.dumps({**BODY, "x": ""}).encode())
    return json.dumps({**BODY, "x": "x" * (size - rest)}).encode()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (body_of(16_385), "larger than 16384 bytes"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 16_000, "not JSON"),
        (b"[]", "JSON object of plain text"),
        (b'"text"', "JSON object of plain text"),
        (b'{"client_name": "a\\u0000b"}', "JSON object of plain text"),
        (b'{"client_name": "\\ud800"}', "JSON object of plain text"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_the_body_is_a_small_json_object(body: bytes, reason: str) -> None:
    response = raw_post(body)
    assert (response.status_code, response.json()["error"]) == (400, METADATA)
    assert reason in response.json()["error_description"]


def test_the_largest_body_is_accepted() -> None:
    assert raw_post(body_of(16_384)).status_code == 201
    assert module.MAX_BODY == 16_384


def test_a_program_registers_without_a_csrf_token() -> None:
    strict = Client(enforce_csrf_checks=True)
    response = strict.post("/oauth/register", BODY, content_type="application/json")
    assert response.status_code == 201
    refused = strict.get("/oauth/register")
    assert (refused.status_code, refused["Allow"]) == (405, "POST, OPTIONS")


# The registration token


@pytest.fixture
def token_needed(settings: Any) -> None:
    settings.CLIENT_REGISTRATION = "token"
    settings.REGISTRATION_TOKEN = "initial-access-token"
    settings.LOCKOUT_AFTER = 2


@pytest.mark.usefixtures("token_needed")
@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer initial-access-token", 201),
        ("bearer initial-access-token", 201),
        ("Basic initial-access-token", 401),
        ("Bearer initial-access-token2", 401),
        ("Bearer initial-access-toke", 401),
        ("Bearer \u00e9", 401),
        ("Bearer", 401),
        ("initial-access-token", 401),
        ("", 401),
    ],
)
def test_registration_needs_the_token(header: str, status: int) -> None:
    response = post(BODY, HTTP_AUTHORIZATION=header)
    assert response.status_code == status
    assert OAuthClient.objects.exists() is (status == 201)
    if status == 401:
        assert response.json()["error"] == "invalid_token"
        assert "initial access token" in response.json()["error_description"]
        assert response["WWW-Authenticate"] == "Bearer"


@pytest.mark.usefixtures("token_needed")
def test_wrong_tokens_lock_registration_at_this_address() -> None:
    wrong, right = (
        {"HTTP_AUTHORIZATION": f"Bearer {raw}"}
        for raw in ("wrong", "initial-access-token")
    )
    assert [post(BODY, **wrong).status_code for _ in "12"] == [401, 429]
    assert post(BODY, **right).status_code == 429
    assert post(BODY, **right, REMOTE_ADDR="192.0.2.9").status_code == 201
    refused = events_of("secret.refused")
    assert [e.object for e in refused] == ["client registration"] * 2


def test_registration_that_is_off_says_so(settings: Any) -> None:
    settings.CLIENT_REGISTRATION = "off"
    response = post(BODY)
    assert response.status_code == 403
    assert response.json() == {
        "error": "access_denied",
        "error_description": "Registration is off; ask the administrator.",
        "error_uri": f"{settings.ISSUER_URL}/help/#a-client-cannot-register",
    }
    assert not OAuthClient.objects.exists()


def test_a_storable_document_has_no_nul_and_no_lone_surrogate() -> None:
    assert module.is_storable({"a": ["\u00e9", {"b": 1}]})
    assert not module.is_storable({"a": [{"b": "\x00"}]})
    assert not module.is_storable({"\ud800": 1})


def test_a_refusal_has_the_code_it_was_raised_with() -> None:
    with pytest.raises(InvalidClientMetadata) as refused:
        module.validated_redirect_uris(["ftp://a.example"])
    assert refused.value.error == REDIRECT and "use https" in str(refused.value)
