"""The request validator, and the library methods that Portico overrides."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from allauth.usersessions.models import UserSession, UserSessionManager
from django.contrib.auth.hashers import make_password
from django.contrib.sessions.backends import db as sessions
from mcp.server.mcpserver import MCPServer
from oauth2_provider import cimd, models, oauth2_validators
from oauth2_provider.oauth2_backends import OAuthLibCore
from oauth2_provider.views.mixins import OAuthLibMixin
from oauthlib.common import Request
from oauthlib.oauth2.rfc6749.errors import InvalidGrantError

from accounts.crypto.secrets import code_hash
from accounts.models import DocumentHost, OAuthClient, OAuthGrant, User
from accounts.models.oauth import OAuthAccessToken, OAuthRefreshToken
from accounts.oauth.toolkit.validator import PorticoValidator
from accounts.tokens.issue import lock
from tests.support.model_rows import record_locks
from tests.support.oauth_requests import (
    APP_BACK,
    SECRET,
    basic,
    confidential_client,
    error_of,
    oauth_client,
    post_form,
    stored_code,
)
from tests.support.users import account

BASE = oauth2_validators.OAuth2Validator
OVERRIDDEN = [
    "_create_authorization_code",
    "_extract_basic_auth",
    "_load_application",
    "authenticate_client",
    "client_authentication_required",
    "confirm_redirect_uri",
    "get_authorization_code_scopes",
    "get_code_challenge",
    "get_code_challenge_method",
    "get_default_redirect_uri",
    "invalidate_authorization_code",
    "save_bearer_token",
    "validate_code",
]


@pytest.mark.once
@pytest.mark.parametrize("name", OVERRIDDEN)
def test_each_override_replaces_a_method(name: str) -> None:
    """It has the parameters that the library passes."""
    theirs = list(inspect.signature(getattr(BASE, name)).parameters)
    ours = list(inspect.signature(getattr(PorticoValidator, name)).parameters)
    named = [p for p in theirs if p not in ("args", "kwargs")]
    assert ours[: len(named)] == named


@pytest.mark.once
@pytest.mark.parametrize(
    ("where", "name"),
    [
        (OAuthLibCore, "_extract_params"),
        (OAuthLibMixin, "get_oauthlib_core"),
        (OAuthLibMixin, "validate_authorization_request"),
        (OAuthLibMixin, "create_authorization_response"),
        (OAuthLibMixin, "create_token_response"),
        (cimd, "_backoff_cache_key"),
        (cimd, "_ip_is_public"),
        (cimd, "_registration_permitted"),
        (cimd, "_resolve_and_validate"),
        (cimd, "_validate_client_id_url"),
        (cimd.SafeMetadataFetcher, "_read_document"),
        (models.AbstractApplication, "allows_grant_type"),
        (models.AbstractApplication, "is_usable"),
        (models.AbstractApplication, "get_allowed_schemes"),
        (sessions.SessionStore, "_get_session_from_db"),
        (sessions.SessionStore, "create_model_instance"),
        (UserSessionManager, "create_from_request"),
        (UserSession, "_session_store"),
        (UserSession, "is_current"),
        (UserSession, "end"),
    ],
)
def test_called_and_replaced_methods_exist(where: Any, name: str) -> None:
    assert callable(getattr(where, name))


@pytest.mark.once
@pytest.mark.parametrize(
    "name",
    ["_tool_manager", "_prompt_manager", "_resource_manager", "_lowlevel_server"],
)
def test_the_sdks_managers_can_be_replaced(name: str) -> None:
    assert hasattr(MCPServer("probe"), name)


@pytest.mark.spec("RFC 9110 11.1: the scheme is matched in any case")
@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Basic abc", "abc"),
        ("basic abc", "abc"),
        ("BASIC  abc ", "abc"),
        ("Basic", None),
        ("Basic  ", None),
        ("Bearer abc", None),
        ("Basicabc", None),
        ("", None),
        (None, None),
    ],
)
def test_basic_credentials_are_read(header: str | None, value: str | None) -> None:
    request = SimpleNamespace(headers={"HTTP_AUTHORIZATION": header})
    assert PorticoValidator()._extract_basic_auth(request) == value


@pytest.mark.django_db
@pytest.mark.parametrize("header", ["\u00e9", "!!!", "YWJj", "/zov", "YQA6Yg=="])
def test_odd_basic_headers_are_invalid_client(header: str) -> None:
    """RFC 7617 2: not ASCII, no base64, no colon, no UTF-8, a NUL."""
    form = {"token": "x"}
    response = post_form("/oauth/revoke", form, HTTP_AUTHORIZATION=f"Basic {header}")
    assert error_of(response) == (401, "invalid_client")


@pytest.mark.django_db
@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_an_empty_secret_proves_nothing(method: str) -> None:
    """Of a confidential client whose row was written without one."""
    confidential_client(client_secret="", token_endpoint_auth_method=method)
    form, headers = {"token": "x"}, {}
    if method == "client_secret_basic":
        headers = basic("app", "")
    else:
        form |= {"client_id": "app", "client_secret": ""}
    response = post_form("/oauth/revoke", form, **headers)
    assert error_of(response) == (401, "invalid_client")


@pytest.mark.django_db
@pytest.mark.parametrize(
    "wrong",
    [f" {SECRET}", f"{SECRET} ", f"{SECRET}\n", SECRET.upper(), SECRET[:-1], "x"],
)
@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_a_secret_is_compared_as_it_was_sent(method: str, wrong: str) -> None:
    confidential_client(token_endpoint_auth_method=method)
    for secret, status in ((wrong, 401), (SECRET, 200)):
        form, headers = {"token": "x"}, basic("app", secret)
        if method == "client_secret_post":
            form, headers = {**form, "client_id": "app", "client_secret": secret}, {}
        assert post_form("/oauth/revoke", form, **headers).status_code == status


@pytest.mark.parametrize(("sent", "right"), [(SECRET, True), ("x", False)])
def test_a_secret_is_compared_before_a_client_is_loaded(sent: str, right: bool) -> None:
    """Without a request nothing is counted."""
    validator, stored = PorticoValidator(), make_password(SECRET)
    assert validator._check_secret(sent, stored) is right
    assert validator.claimed_client_id == ""


@pytest.fixture
def client(db: None) -> OAuthClient:
    return oauth_client()


def test_a_client_authenticated_before_is_used(client: OAuthClient) -> None:
    request = Request("/oauth/token", body={"client_id": "app"})
    validator = PorticoValidator(client)
    assert validator.client_authentication_required(request)
    assert validator.authenticate_client(request)
    assert request.client is client


def test_an_assertion_requires_authentication(client: OAuthClient) -> None:
    plain = Request("/", body={"client_id": "app"})
    signed = Request("/", body={"client_id": "app", "client_assertion": "a"})
    assert not PorticoValidator().client_authentication_required(plain)
    assert PorticoValidator().client_authentication_required(signed)


def loaded(validator: PorticoValidator, client_id: str | None) -> OAuthClient | None:
    """The client that is loaded; the request gets the same one."""
    request = Request("/")
    found: OAuthClient | None = validator._load_application(client_id, request)
    assert request.client == found
    assert validator.claimed_client_id == (client_id or "")
    return found


def test_a_client_is_loaded_by_its_id(client: OAuthClient) -> None:
    other = oauth_client("other")
    oauth_client("blocked", blocked=True)
    refused = "https://refused.example/client.json"
    oauth_client(refused, registration_source="cimd")
    DocumentHost.objects.create(host="refused.example", trusted=False)
    for name in (None, "", "unknown", "app\x00", "blocked", refused):
        assert loaded(PorticoValidator(), name) is None
    assert loaded(PorticoValidator(), "app") == client
    assert loaded(PorticoValidator(client), "other") == other
    assert loaded(PorticoValidator(client), "app") is client


def test_no_document_is_fetched_for_a_client(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The toolkit would, inside the endpoint's transaction."""
    fetched: list[str] = []
    for name in ("resolve_cimd_application", "refresh_if_stale"):
        monkeypatch.setattr(cimd, name, lambda about, **_: fetched.append(str(about)))
    known = "https://app.example/client.json"
    oauth_client(known, registration_source="cimd")
    for client_id in (known, "https://new.example/client.json"):
        loaded(PorticoValidator(), client_id)
    assert fetched == []


def test_a_client_authenticated_before_is_refused_once_it_is_blocked(
    client: OAuthClient,
) -> None:
    client.blocked = True
    assert loaded(PorticoValidator(client), "app") is None


def validated(client: OAuthClient, code: str) -> tuple[bool, Request]:
    request = Request("/", body={"code": code})
    request.client = client
    valid = PorticoValidator(client).validate_code("app", code, client, request)
    return valid, request


def test_a_valid_code_gives_its_grant_user_and_scopes(client: OAuthClient) -> None:
    alice = account("alice", "User")
    code, _ = stored_code(alice, client, scope="mcp User.Read")
    valid, request = validated(client, code)
    grant = OAuthGrant.objects.get()
    assert valid and (request.grant, request.user) == (grant, alice)
    assert request.scopes == ["mcp", "User.Read"]
    validator = PorticoValidator(client)
    assert validator.get_authorization_code_scopes("app", code, "", request) == [
        "mcp",
        "User.Read",
    ]
    assert validator.get_code_challenge(code, request) == grant.code_challenge
    assert validator.get_code_challenge_method(code, request) == "S256"
    assert validator.get_default_redirect_uri("app", request) == APP_BACK


def test_a_code_without_a_challenge_has_none(client: OAuthClient) -> None:
    columns = {"code_challenge": "", "code_challenge_method": ""}
    code, _ = stored_code(account("alice"), client, **columns)
    _valid, request = validated(client, code)
    assert PorticoValidator().get_code_challenge(code, request) is None
    assert PorticoValidator().get_code_challenge_method(code, request) is None


def test_without_a_code_the_clients_only_uri_is_the_default(
    client: OAuthClient,
) -> None:
    request = Request("/")
    request.client = client
    found = PorticoValidator().get_default_redirect_uri("app", request)
    assert found == APP_BACK


def test_a_code_revoked_while_the_account_is_locked_is_gone(
    client: OAuthClient, monkeypatch: Any
) -> None:
    code, _ = stored_code(account("alice"), client)

    def revoked_meanwhile(user_id: int, client_id: str) -> User:
        OAuthGrant.objects.all().delete()
        return lock(user_id, client_id)

    monkeypatch.setattr(
        "accounts.oauth.toolkit.validator.lock", revoked_meanwhile, raising=True
    )
    assert validated(client, code)[0] is False


def test_client_account_and_code_are_locked(
    client: OAuthClient, monkeypatch: Any
) -> None:
    """SQLite ignores row locks, so no other test notices one that is missing."""
    code, _ = stored_code(account("alice"), client)
    locked = record_locks(monkeypatch)
    assert validated(client, code)[0]
    assert locked == ["OAuthClient", "User", "OAuthGrant"]


def test_a_code_is_marked_as_redeemed_once(client: OAuthClient) -> None:
    alice = account("alice")
    code, _ = stored_code(alice, client)
    kept, _ = stored_code(alice, client)
    _valid, request = validated(client, code)
    validator = PorticoValidator(client)
    validator.invalidate_authorization_code("app", code, request)
    with pytest.raises(InvalidGrantError):
        validator.invalidate_authorization_code("app", code, request)
    marked = {g.code: g.redeemed_at is not None for g in OAuthGrant.objects.all()}
    assert marked == {code_hash(code): True, code_hash(kept): False}


def test_the_redirect_uri_is_compared_for_this_client_only(
    client: OAuthClient,
) -> None:
    code, _ = stored_code(account("alice"), client)
    confirm = PorticoValidator(client).confirm_redirect_uri
    assert confirm("app", code, APP_BACK, client) is True
    with pytest.raises(InvalidGrantError, match="another redirect_uri"):
        confirm("app", code, f"{APP_BACK}?", client)
    with pytest.raises(OAuthGrant.DoesNotExist):
        confirm("other", code, APP_BACK, oauth_client("other"))


def test_the_toolkits_token_tables_stay_empty(client: OAuthClient) -> None:
    PorticoValidator(client).save_bearer_token({"access_token": "x"}, Request("/"))
    assert not OAuthAccessToken.objects.exists()
    assert not OAuthRefreshToken.objects.exists()
