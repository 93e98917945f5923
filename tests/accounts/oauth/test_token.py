"""POST /oauth/token."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from datetime import timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings
from django.utils import timezone
from jwt.algorithms import ECAlgorithm

from accounts.crypto.secrets import code_hash, secret_hash
from accounts.errors import EndpointError
from accounts.models import IssuedToken, OAuthClient, OAuthGrant, User
from accounts.models.oauth import DEVICE_GRANT
from accounts.oauth import token
from accounts.oauth.clients.assertions import ASSERTION
from accounts.oauth.token import ERROR_DESCRIPTIONS, GRANTS
from accounts.oauth.toolkit.validator import PorticoValidator
from accounts.tokens.issue import TokenPair, issue_tokens
from tests.support.model_rows import events_of, open_transactions
from tests.support.oauth_requests import (
    APP_BACK,
    SECRET,
    basic,
    confidential_client,
    device_grant,
    error_of,
    oauth_client,
    post_form,
    redeem,
    stored_code,
)
from tests.support.users import account

pytestmark = pytest.mark.django_db
TOKEN = "/oauth/token"
ELSEWHERE = "https://elsewhere.example/mcp"


@pytest.fixture
def user() -> User:
    return account("alice", "User")


@pytest.fixture
def client() -> OAuthClient:
    return oauth_client()


@pytest.mark.parametrize("grant", ["authorization_code", DEVICE_GRANT])
def test_codes_are_redeemed_in_one_transaction(
    client: OAuthClient, monkeypatch: Any, grant: str
) -> None:
    """What is locked stays locked until the tokens are stored."""
    opened: list[int] = []

    def note(*args: Any) -> Any:
        opened.append(open_transactions())
        raise EndpointError("invalid_grant", "No such code.")

    monkeypatch.setattr(PorticoValidator, "validate_code", note)
    monkeypatch.setattr(token, "redeem_device_code", note)
    form = {"grant_type": grant, "code": "c", "device_code": "c", "client_id": "app"}
    response = post_form(TOKEN, form | {"code_verifier": "v" * 43})
    assert error_of(response) == (400, "invalid_grant") and opened == [1]


def is_redeemed(code: str) -> bool:
    return OAuthGrant.objects.get(code=code_hash(code)).redeemed_at is not None


def used_at(client: OAuthClient) -> Any:
    return OAuthClient.objects.get(pk=client.pk).last_used_at


def token_of(raw: str) -> IssuedToken:
    """The row of a signed access token."""
    jti = jwt.decode(raw, options={"verify_signature": False})["jti"]
    return IssuedToken.objects.get(jti=jti)


@pytest.mark.spec("OAuth 2.1 3.2.4: error codes")
@pytest.mark.spec("OAuth 2.1 10: no password, no implicit grant")
@pytest.mark.parametrize(
    ("grant", "error"),
    [
        (None, "invalid_request"),
        ("", "invalid_request"),
        ("password", "unsupported_grant_type"),
        ("implicit", "unsupported_grant_type"),
        ("urn:ietf:params:oauth:grant-type:jwt-bearer", "unsupported_grant_type"),
        ("authorization_code ", "unsupported_grant_type"),
    ],
)
def test_other_grants_are_refused_before_authentication(
    grant: str | None, error: str
) -> None:
    response = post_form(TOKEN, {"grant_type": grant, "state": "s"})
    assert error_of(response) == (400, error)
    assert all(name in response.json()["error_description"] for name in GRANTS)


def test_the_grants_are_those_of_the_metadata() -> None:
    assert set(GRANTS) == {
        "authorization_code",
        "client_credentials",
        "refresh_token",
        "urn:ietf:params:oauth:grant-type:device_code",
    }


# Authorization codes


@pytest.mark.spec("OAuth 2.1 4.1.3")
def test_a_code_gives_a_pair(client: OAuthClient, user: User) -> None:
    resource = [settings.RESOURCE_URL]
    code, raw = stored_code(user, client, scope="mcp User.Read", resource=resource)
    before = timezone.now()
    response = redeem(client, code, raw, resource=resource)
    body = response.json()
    assert response.status_code == 200
    assert (response["Cache-Control"], response["Pragma"]) == ("no-store", "no-cache")
    assert set(body) == {
        "access_token",
        "refresh_token",
        "token_type",
        "expires_in",
        "scope",
    }
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 1800)
    assert body["scope"] == "mcp User.Read"
    row = token_of(body["access_token"])
    grant = OAuthGrant.objects.get(code=code_hash(code))
    refresh = IssuedToken.objects.get(secret_hash=secret_hash(body["refresh_token"]))
    for one in (row, refresh):
        assert (one.user, one.client_id, one.scope) == (user, "app", "mcp User.Read")
        assert one.issued_via == "authorization_code" and one.family == grant.family
    assert grant.redeemed_at is not None and grant.redeemed_at >= before
    assert used_at(client) >= before
    events = [(e.actor, e.client_id, e.token_id) for e in events_of("token.issued")]
    assert events == [("alice", "app", row.jti)]


def test_a_code_is_stored_with_the_address_of_the_request(
    client: OAuthClient, user: User
) -> None:
    code, raw = stored_code(user, client)
    form = {"grant_type": "authorization_code", "client_id": "app", "code": code}
    form["code_verifier"] = raw
    body = post_form(TOKEN, form, REMOTE_ADDR="192.0.2.7").json()
    assert token_of(body["access_token"]).issued_to == "192.0.2.7"
    assert events_of("token.issued")[0].address == "192.0.2.7"


@pytest.mark.spec("OAuth 2.1 4.1.3: code bound to client, redirect, challenge")
@pytest.mark.spec("OAuth 2.1 10.2: redirect_uri optional at the token endpoint")
@pytest.mark.parametrize("redirect_uri", [None, APP_BACK])
def test_another_client_cannot_redeem_a_code(
    client: OAuthClient, user: User, redirect_uri: str | None
) -> None:
    """Also without a redirect URI, which OAuth 2.1 10.2 makes optional."""
    other = oauth_client("other")
    code, raw = stored_code(user, client)
    stolen = redeem(other, code, raw, redirect_uri=redirect_uri)
    assert error_of(stolen) == (400, "invalid_grant")
    assert not is_redeemed(code) and not IssuedToken.objects.exists()
    own = redeem(client, code, raw, redirect_uri=redirect_uri)
    assert own.status_code == 200 and is_redeemed(code)


@pytest.mark.spec("OAuth 2.1 10.2: redirect_uri optional at the token endpoint")
@pytest.mark.parametrize("number", range(3))
def test_an_omitted_redirect_uri_is_that_of_the_code(user: User, number: int) -> None:
    """Whichever of the client's it was."""
    uris = [APP_BACK, f"{APP_BACK}/2", "http://localhost/cb"]
    client = oauth_client(redirect_uris=" ".join(uris))
    code, raw = stored_code(user, client, redirect_uri=uris[number])
    assert redeem(client, code, raw, redirect_uri=None).status_code == 200


def test_another_client_does_not_revoke_by_replaying(
    client: OAuthClient, user: User
) -> None:
    code, raw = stored_code(user, client)
    access = redeem(client, code, raw).json()["access_token"]
    assert redeem(oauth_client("other"), code, raw).status_code == 400
    assert token_of(access).state == "active" and not events_of("code.replayed")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"code_verifier": "x" * 43}, "invalid_grant"),
    ({"code_verifier": None}, "invalid_request"),
    ({"code": "unknown"}, "invalid_grant"),
    ({"code": None}, "invalid_request"),
    ({"redirect_uri": f"{APP_BACK}/"}, "invalid_grant"),
    ({"redirect_uri": "https://app.example"}, "invalid_grant"),
    ({"resource": ELSEWHERE}, "invalid_target"),
    ({"resource": [settings.RESOURCE_URL, ELSEWHERE]}, "invalid_target"),
]


@pytest.mark.spec("RFC 7636 4.6")
@pytest.mark.spec("RFC 6749 5.2: another redirect_uri is invalid_grant")
@pytest.mark.spec("RFC 8707 2.2: resource within the grant")
@pytest.mark.parametrize(("changed", "error"), WRONG, ids=str)
def test_a_code_is_bound_to_its_request(
    client: OAuthClient, user: User, changed: dict[str, Any], error: str
) -> None:
    code, raw = stored_code(user, client)
    assert error_of(redeem(client, code, raw, **changed)) == (400, error)
    assert not is_redeemed(code) and not IssuedToken.objects.exists()
    assert redeem(client, code, raw).status_code == 200


def test_another_redirect_uri_is_named_as_the_reason(
    client: OAuthClient, user: User
) -> None:
    code, raw = stored_code(user, client)
    response = redeem(client, code, raw, redirect_uri="https://app.example/other")
    text = "The authorization request had another redirect_uri."
    assert response.json()["error_description"] == text


@pytest.mark.spec("RFC 7636 4.1: 43 to 128 characters")
@pytest.mark.parametrize(
    ("raw", "good"),
    [
        ("x" * 43, True),
        ("x" * 128, True),
        ("aZ09-._~" * 6, True),
        ("x" * 42, False),
        ("x" * 129, False),
        ("x" * 42 + "!", False),
        ("x" * 43 + "\n", False),
        ("x" * 42 + "\u00e9", False),
        ("x" * 42 + "\u0661", False),
    ],
)
def test_a_verifier_has_the_form_of_the_rfc(
    client: OAuthClient, user: User, raw: str, good: bool
) -> None:
    """The hash of each of them is right."""
    digest = hashlib.sha256(raw.encode()).digest()
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    code, _ = stored_code(user, client, code_challenge=challenge)
    response = redeem(client, code, raw)
    assert response.status_code == (200 if good else 400)
    assert good or error_of(response) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("columns", "error"),
    [
        ({"code_challenge": "", "code_challenge_method": ""}, "invalid_grant"),
        ({"code_challenge_method": ""}, "invalid_grant"),
        ({"auth_digest": ""}, "invalid_grant"),
        ({"auth_digest": "0" * 64}, "invalid_grant"),
    ],
    ids=str,
)
def test_a_code_without_its_bindings_is_refused(
    client: OAuthClient, user: User, columns: dict[str, Any], error: str
) -> None:
    code, raw = stored_code(user, client, **columns)
    assert error_of(redeem(client, code, raw)) == (400, error)


@pytest.mark.spec("OAuth 2.1 4.1.2: codes are short-lived")
@pytest.mark.parametrize(("seconds", "status"), [(5, 200), (0, 400), (-5, 400)])
def test_a_code_expires(
    client: OAuthClient, user: User, seconds: int, status: int
) -> None:
    expires = timezone.now() + timedelta(seconds=seconds)
    code, raw = stored_code(user, client, expires=expires)
    response = redeem(client, code, raw)
    assert response.status_code == status
    assert status == 200 or error_of(response) == (400, "invalid_grant")


def close(user: User, client: OAuthClient) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def end_sessions(user: User, client: OAuthClient) -> None:
    User.objects.filter(pk=user.pk).update(session_epoch=7)


def change_password(user: User, client: OAuthClient) -> None:
    User.objects.filter(pk=user.pk).update(password="other")


@pytest.mark.parametrize("ending", [close, end_sessions, change_password])
def test_a_code_of_an_account_whose_access_ended_is_refused(
    client: OAuthClient, user: User, ending: Any
) -> None:
    code, raw = stored_code(user, client)
    ending(user, client)
    response = redeem(client, code, raw)
    assert error_of(response) == (400, "invalid_grant")
    assert response.json()["error_description"] == ERROR_DESCRIPTIONS["invalid_grant"]
    assert not IssuedToken.objects.exists() and not is_redeemed(code)


@pytest.mark.spec("OAuth 2.1 4.1.3: a replayed code revokes its tokens")
def test_a_replayed_code_revokes_its_own_tokens_only(
    client: OAuthClient, user: User
) -> None:
    (code, raw), (other_code, other_raw) = (stored_code(user, client) for _ in "12")
    pair = redeem(client, code, raw).json()
    other = redeem(client, other_code, other_raw).json()
    assert error_of(redeem(client, code, raw)) == (400, "invalid_grant")
    family = IssuedToken.objects.filter(family=token_of(pair["access_token"]).family)
    assert [row.state for row in family] == ["revoked", "revoked"]
    assert token_of(other["access_token"]).state == "active"
    [event] = events_of("code.replayed")
    assert (event.actor, event.actor_id) == ("alice", user.pk)
    assert event.object == "authorization code of alice"
    assert (event.client_id, event.reason) == ("app", "2 live tokens revoked")
    reasons = {(e.actor, e.reason) for e in events_of("token.revoked")}
    assert reasons == {("", "authorization code replayed")}


def test_a_replay_counts_also_after_the_code_expired(
    client: OAuthClient, user: User
) -> None:
    code, raw = stored_code(user, client)
    access = redeem(client, code, raw).json()["access_token"]
    OAuthGrant.objects.update(expires=timezone.now() - timedelta(days=1))
    assert redeem(client, code, raw).status_code == 400
    assert token_of(access).state == "revoked"


def test_a_client_without_the_grant_cannot_redeem(user: User) -> None:
    client = oauth_client(grant_types=[DEVICE_GRANT])
    code, raw = stored_code(user, client)
    response = redeem(client, code, raw)
    assert error_of(response) == (400, "unauthorized_client")
    text = response.json()["error_description"]
    assert text == "The client is not registered for this grant type."
    assert not is_redeemed(code)


@pytest.mark.parametrize("error", [*ERROR_DESCRIPTIONS, "server_error"])
def test_a_library_error_without_text_is_described(
    client: OAuthClient, monkeypatch: Any, error: str
) -> None:
    """The library's status stays."""
    from oauth2_provider.oauth2_backends import OAuthLibCore

    answer: Any = (None, {}, json.dumps({"error": error}), 418)
    monkeypatch.setattr(OAuthLibCore, "create_token_response", lambda *a: answer)
    response = redeem(client, "code", "x" * 43)
    assert error_of(response) == (418, error)
    expected = str(ERROR_DESCRIPTIONS.get(error, error))
    assert response.json()["error_description"] == expected


def test_the_descriptions_are_complete() -> None:
    expected = {"invalid_client", "invalid_grant", "unauthorized_client"}
    assert set(ERROR_DESCRIPTIONS) == expected


def test_a_confidential_client_redeems_with_its_secret(user: User) -> None:
    client = confidential_client()
    code, raw = stored_code(user, client)
    assert error_of(redeem(client, code, raw)) == (401, "invalid_client")
    assert redeem(client, code, raw, client_secret=SECRET).status_code == 200


def test_an_assertion_is_verified_once_in_a_request(user: User) -> None:
    """The toolkit would verify it again, as a replay."""
    key = ec.generate_private_key(ec.SECP256R1())
    jwks = {"keys": [ECAlgorithm.to_jwk(key.public_key(), as_dict=True)]}
    client = confidential_client(
        token_endpoint_auth_method="private_key_jwt", client_jwks=jwks
    )
    code, raw = stored_code(user, client)
    claims: dict[str, Any] = {"iss": "app", "sub": "app", "jti": uuid4().hex}
    claims |= {"aud": settings.ISSUER_URL, "exp": int(time.time()) + 60}
    proof = {"client_assertion": jwt.encode(claims, key, algorithm="ES256")}
    proof |= {"client_assertion_type": ASSERTION}
    assert redeem(client, code, raw, **proof).status_code == 200
    replayed = redeem(client, *stored_code(user, client), **proof)
    assert error_of(replayed) == (401, "invalid_client")


# Refresh tokens


@pytest.fixture
def pair(client: OAuthClient, user: User) -> TokenPair:
    return issue_tokens(
        user,
        issued_via="authorization_code",
        scope="mcp User.Read",
        client_id=client.client_id,
        opaque=True,
    )


def refresh(client: OAuthClient, raw: str | None, **more: Any) -> Any:
    headers = {name: more.pop(name) for name in [*more] if name.isupper()}
    form = {"grant_type": "refresh_token", "client_id": client.client_id}
    return post_form(TOKEN, {**form, "refresh_token": raw, **more}, **headers)


@pytest.mark.spec("OAuth 2.1 4.3.1")
def test_a_refresh_token_is_rotated(client: OAuthClient, pair: TokenPair) -> None:
    response = refresh(client, pair.refresh, REMOTE_ADDR="192.0.2.7")
    body = response.json()
    assert response.status_code == 200 and response["Cache-Control"] == "no-store"
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 1800)
    assert body["scope"] == "mcp User.Read"
    assert body["refresh_token"] != pair.refresh
    row = token_of(body["access_token"])
    assert (row.family, row.issued_to) == (pair.row.family, "192.0.2.7")
    old = IssuedToken.objects.get(secret_hash=secret_hash(pair.refresh))
    assert old.redeemed_at is not None and old.last_used_from == "192.0.2.7"
    assert used_at(client) is not None
    assert refresh(client, body["refresh_token"]).status_code == 200


@pytest.mark.spec("RFC 6749 6: a narrowed refresh does not narrow the grant")
def test_a_refresh_may_ask_for_less_but_not_for_more(
    client: OAuthClient, pair: TokenPair
) -> None:
    wider = refresh(client, pair.refresh, scope="mcp User.Write")
    assert error_of(wider) == (400, "invalid_scope")
    narrow = refresh(client, pair.refresh, scope="mcp").json()
    assert narrow["scope"] == "mcp"
    assert refresh(client, narrow["refresh_token"]).json()["scope"] == "mcp User.Read"


@pytest.mark.spec("OAuth 2.1 4.3: refresh bound to client, scope, resource")
def test_a_refresh_token_belongs_to_its_client(
    client: OAuthClient, pair: TokenPair
) -> None:
    other = oauth_client("other")
    assert error_of(refresh(other, pair.refresh)) == (400, "invalid_grant")
    assert used_at(other) is None and used_at(client) is None
    assert refresh(client, pair.refresh).status_code == 200


@pytest.mark.parametrize(
    ("raw", "more", "error"),
    [
        (None, {}, "invalid_request"),
        ("", {}, "invalid_request"),
        ("unknown", {}, "invalid_grant"),
        ("unknown", {"resource": ELSEWHERE}, "invalid_target"),
    ],
)
def test_a_wrong_refresh_gets_the_code_of_the_rfc(
    client: OAuthClient, raw: str | None, more: dict[str, Any], error: str
) -> None:
    assert error_of(refresh(client, raw, **more)) == (400, error)
    assert used_at(client) is None


def test_another_resource_does_not_use_up_the_refresh_token(
    client: OAuthClient, pair: TokenPair
) -> None:
    wrong = refresh(client, pair.refresh, resource=ELSEWHERE)
    assert error_of(wrong) == (400, "invalid_target")
    row = IssuedToken.objects.get(secret_hash=secret_hash(pair.refresh))
    assert row.redeemed_at is None


def test_a_signed_refresh_token_is_not_for_oauth_clients(
    client: OAuthClient, user: User
) -> None:
    signed = issue_tokens(user, issued_via="command", client_id="app").refresh
    assert error_of(refresh(client, signed)) == (400, "invalid_grant")


def test_an_opaque_access_token_does_not_exist(
    client: OAuthClient, pair: TokenPair
) -> None:
    assert error_of(refresh(client, pair.access)) == (400, "invalid_grant")


# Device codes: the rules are in test_device.py


def poll(client: OAuthClient, raw: str) -> Any:
    form = {"grant_type": DEVICE_GRANT, "client_id": client.client_id}
    return post_form(TOKEN, {**form, "device_code": raw})


def test_an_allowed_device_code_gives_a_pair(client: OAuthClient, user: User) -> None:
    decision = {"status": "authorized", "auth_digest": user.auth_digest}
    _grant, raw = device_grant(client, user=user, **decision)
    body = poll(client, raw).json()
    assert set(body) == {
        "access_token",
        "refresh_token",
        "token_type",
        "expires_in",
        "scope",
    }
    assert token_of(body["access_token"]).issued_via == "device"


def test_a_refused_poll_is_stored(client: OAuthClient) -> None:
    grant, raw = device_grant(client)
    assert error_of(poll(client, raw)) == (400, "authorization_pending")
    grant.refresh_from_db()
    assert grant.polled_at is not None
    assert error_of(poll(client, raw)) == (400, "slow_down")


def test_a_poll_without_a_code_finds_nothing(client: OAuthClient) -> None:
    form = {"grant_type": DEVICE_GRANT, "client_id": "app"}
    assert error_of(post_form(TOKEN, form)) == (400, "invalid_grant")


def test_a_client_without_the_device_grant_cannot_poll() -> None:
    client = oauth_client(grant_types=["authorization_code"])
    _grant, raw = device_grant(client)
    assert error_of(poll(client, raw)) == (400, "unauthorized_client")


# Client credentials


def robot_client(client_id: str = "job", **columns: Any) -> OAuthClient:
    robot = account("robot", "User")
    known = {"service_account": robot, "grant_types": ["client_credentials"]}
    return confidential_client(client_id, **{**known, **columns})


def credentials(client_id: str = "job", **form: Any) -> Any:
    asked = {"grant_type": "client_credentials", **form}
    return post_form(TOKEN, asked, **basic(client_id), REMOTE_ADDR="192.0.2.7")


@pytest.mark.spec("OAuth 2.1 4.2")
def test_a_client_acts_as_its_service_account() -> None:
    client = robot_client()
    response = credentials(scope="User.Read mcp")
    body = response.json()
    assert response.status_code == 200 and response["Cache-Control"] == "no-store"
    assert set(body) == {"access_token", "token_type", "expires_in", "scope"}
    assert body["scope"] == "User.Read mcp"
    [row] = IssuedToken.objects.all()
    assert (row.username, row.kind, row.client_id) == ("robot", "access", "job")
    assert (row.issued_via, row.issued_to) == ("client_credentials", "192.0.2.7")
    assert row.scope == "User.Read mcp"
    assert used_at(client) is not None
    assert [(e.actor, e.client_id) for e in events_of("token.issued")] == [
        ("robot", "job")
    ]


def test_the_default_scope_of_a_service_account_is_mcp() -> None:
    robot_client()
    assert credentials().json()["scope"] == "mcp"


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"scope": "Admin.Write"}, "invalid_scope"),
        ({"scope": "mcp Admin.Write"}, "invalid_scope"),
        ({"scope": " ".join(map(str, range(5_000)))}, "invalid_scope"),
        ({"resource": ELSEWHERE}, "invalid_target"),
    ],
    ids=str,
)
def test_a_service_account_gets_no_more_than_its_roles(
    form: dict[str, str], error: str
) -> None:
    client = robot_client()
    assert error_of(credentials(**form)) == (400, error)
    assert not IssuedToken.objects.exists() and used_at(client) is None


@pytest.mark.parametrize(
    "columns",
    [
        {"grant_types": ["authorization_code"]},
        {"grant_types": []},
        {"service_account": None},
    ],
    ids=str,
)
def test_a_client_without_the_grant_or_account_gets_no_token(
    columns: dict[str, Any],
) -> None:
    robot_client(**columns)
    assert error_of(credentials()) == (400, "unauthorized_client")
    assert not IssuedToken.objects.exists()


def test_a_closed_service_account_gets_no_token() -> None:
    robot_client()
    User.objects.update(is_active=False)
    assert error_of(credentials()) == (400, "unauthorized_client")


@pytest.mark.spec("OAuth 2.1 4.2: confidential clients only")
def test_a_public_client_does_not_act_as_a_service_account() -> None:
    """Its client_id is no secret, so anybody could."""
    robot_client("open", client_type="public", client_secret="")
    form = {"grant_type": "client_credentials", "client_id": "open"}
    assert error_of(post_form(TOKEN, form)) == (400, "unauthorized_client")
    assert error_of(post_form(TOKEN, form, **basic("open", ""))) == (
        400,
        "unauthorized_client",
    )
    assert not IssuedToken.objects.exists()
