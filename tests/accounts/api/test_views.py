"""/api/token/ and its family, and the JWK Set, in process."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from rest_framework import exceptions
from rest_framework.exceptions import ErrorDetail
from rest_framework_simplejwt.exceptions import TokenError

from accounts import errors
from accounts.api.views import (
    WRONG_CREDENTIALS,
    oauth_error_of,
    validation_message,
)
from accounts.models import IssuedToken, SigningKey, User
from accounts.rate_limits.errors import RateLimited, RateLimitUnavailable
from accounts.tokens.issue import TokenPair, issue_tokens
from tests.support.model_rows import events_of
from tests.support.oauth_requests import oauth_client
from tests.support.password import PASSWORD
from tests.support.users import account

pytestmark = pytest.mark.django_db
PATHS = ["", "refresh/", "verify/", "blacklist/"]


@pytest.fixture(autouse=True)
def cheap_hashes(settings: Any) -> None:
    cheap = "django.contrib.auth.hashers.MD5PasswordHasher"
    settings.PASSWORD_HASHERS = [cheap, *settings.PASSWORD_HASHERS]


@pytest.fixture
def user() -> User:
    """alice, with a password."""
    alice = account("alice", "User")
    alice.set_password(PASSWORD)
    alice.save()
    return alice


@pytest.fixture
def pair() -> TokenPair:
    return issue_tokens(account("alice", "User"), issued_via="password")


def post(path: str = "", body: Any = None, **options: Any) -> Any:
    known = {"content_type": "application/json", "REMOTE_ADDR": "192.0.2.7"}
    return Client().post(f"/api/token/{path}", body or {}, **{**known, **options})


def sign_in(**changed: Any) -> Any:
    return post("", {"username": "alice", "password": PASSWORD, **changed})


def refused(response: Any) -> tuple[int, str]:
    """(status, error); checks the form of every error."""
    body = response.json()
    assert set(body) == {"error", "error_description", "detail"}
    assert body["error_description"] == body["detail"] != ""
    assert (response["Cache-Control"], response["Pragma"]) == ("no-store", "no-cache")
    challenge = f'Bearer realm="api", error="{body["error"]}"'
    expected = challenge if response.status_code == 401 else None
    assert response.get("WWW-Authenticate") == expected
    return response.status_code, body["error"]


def states(pair: TokenPair) -> set[str]:
    return {row.state for row in IssuedToken.objects.filter(family=pair.row.family)}


# Obtain


@pytest.mark.spec("RFC 6749 5.1")
def test_a_password_gives_a_pair(user: User) -> None:
    response = sign_in(scope="User.Read mcp")
    body = response.json()
    assert response.status_code == 200
    assert (response["Cache-Control"], response["Pragma"]) == ("no-store", "no-cache")
    assert set(body) == {"access", "refresh", "token_type", "expires_in", "scope"}
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 1800)
    assert body["scope"] == "User.Read mcp"
    rows = IssuedToken.objects.all()
    assert {row.kind for row in rows} == {"access", "refresh"}
    assert {(r.user, r.issued_via, r.issued_to, r.scope) for r in rows} == {
        (user, "password", "192.0.2.7", "User.Read mcp")
    }
    [event] = events_of("token.issued")
    assert (event.actor, event.address) == ("alice", "192.0.2.7")
    assert post("verify/", {"token": body["access"]}).status_code == 200
    assert post("refresh/", {"refresh": body["refresh"]}).status_code == 200


@pytest.mark.parametrize("scope", ["", None])
def test_the_default_scope_is_mcp(user: User, scope: str | None) -> None:
    changed = {} if scope is None else {"scope": scope, "otp": ""}
    assert sign_in(**changed).json()["scope"] == "mcp"


@pytest.mark.spec("RFC 6749 5.2")
@pytest.mark.parametrize(
    ("changed", "status", "error"),
    [
        ({"scope": "Admin.Write"}, 400, "invalid_scope"),
        ({"password": "wrong"}, 401, "invalid_grant"),
        ({"username": "nobody"}, 401, "invalid_grant"),
        ({"username": ""}, 400, "invalid_request"),
        ({"password": ""}, 400, "invalid_request"),
        ({"username": "x" * 151}, 400, "invalid_request"),
        ({"password": "x" * 1_025}, 400, "invalid_request"),
        ({"otp": "x" * 33}, 400, "invalid_request"),
        ({"password": f" {PASSWORD}"}, 401, "invalid_grant"),
        ({"username": ["alice"]}, 400, "invalid_request"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_refused_sign_in_issues_nothing(
    user: User, changed: dict[str, Any], status: int, error: str
) -> None:
    assert refused(sign_in(**changed)) == (status, error)
    assert not IssuedToken.objects.exists()


@pytest.mark.parametrize(
    ("changed", "status", "error"),
    [
        ({"username": "x" * 150}, 401, "invalid_grant"),
        ({"password": "x" * 1_024}, 401, "invalid_grant"),
        ({"scope": "x" * 8_192}, 400, "invalid_scope"),
        ({"scope": "x" * 8_193}, 400, "invalid_scope"),
        ({"otp": "x" * 32}, 200, ""),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_longest_values_are_read(
    user: User, changed: dict[str, Any], status: int, error: str
) -> None:
    response = sign_in(**changed)
    assert response.status_code == status
    assert status == 200 or refused(response) == (status, error)


@pytest.mark.spec("OWASP authentication: uniform answers")
def test_wrong_password_unknown_and_closed_account_look_alike(user: User) -> None:
    answers = [sign_in(password="wrong").content, sign_in(username="x").content]
    User.objects.update(is_active=False)
    answers.append(sign_in().content)
    assert len(set(answers)) == 1
    assert json.loads(answers[0])["detail"] == WRONG_CREDENTIALS


def test_a_password_keeps_its_blanks(user: User) -> None:
    user.set_password(" blanks ")
    user.save()
    assert sign_in(password=" blanks ").status_code == 200
    assert sign_in(password="blanks").status_code == 401


def test_a_second_factor_is_required_of_those_who_have_one(
    user: User, monkeypatch: Any
) -> None:
    asked: list[tuple[str, str, str]] = []

    def check(request: Any, account: User, otp: str) -> None:
        asked.append((request.META["REMOTE_ADDR"], account.username, otp))
        raise errors.SecondFactorRequired("Send a code.")

    monkeypatch.setattr("accounts.api.serializers.check_otp", check)
    assert refused(sign_in(otp="123456")) == (401, "second_factor_required")
    assert asked == [("192.0.2.7", "alice", "123456")]
    assert not IssuedToken.objects.exists()


def test_a_success_clears_the_failures_of_this_account_only(
    user: User, settings: Any
) -> None:
    settings.LOCKOUT_AFTER = 2
    assert sign_in(password="wrong").status_code == 401
    assert sign_in(username="bob", password="wrong").status_code == 401
    assert sign_in().status_code == 200
    assert sign_in(password="wrong").status_code == 401
    assert sign_in(username="bob", password="wrong").status_code == 429


def test_a_refused_scope_does_not_clear_failures(user: User, settings: Any) -> None:
    settings.LOCKOUT_AFTER = 2
    assert sign_in(password="wrong").status_code == 401
    assert sign_in(scope="Admin.Write").status_code == 400
    assert sign_in(password="wrong").status_code == 429


def test_a_locked_account_is_told_when_to_come_back(user: User, settings: Any) -> None:
    settings.LOCKOUT_AFTER = 1
    first, locked = sign_in(password="wrong"), sign_in()
    assert first.status_code == locked.status_code == 429
    assert locked.json()["error"] == "too_many_requests"
    assert 0 < int(locked["Retry-After"]) <= settings.AXES_COOLOFF_TIME.total_seconds()
    assert not IssuedToken.objects.exists()


# Refresh, verify, blacklist


@pytest.mark.spec("OAuth 2.1 4.3.1")
def test_a_refresh_token_is_rotated(pair: TokenPair) -> None:
    response = post("refresh/", {"refresh": pair.refresh})
    body = response.json()
    assert response.status_code == 200 and response["Cache-Control"] == "no-store"
    assert set(body) == {"access", "refresh", "token_type", "expires_in", "scope"}
    assert body["refresh"] != pair.refresh and body["scope"] == "mcp"
    assert pair.refresh_row is not None
    row = IssuedToken.objects.get(pk=pair.refresh_row.pk)
    assert row.redeemed_at is not None and row.last_used_from == "192.0.2.7"


def test_verify_accepts_live_tokens_of_both_kinds(pair: TokenPair) -> None:
    for raw in (pair.access, pair.refresh):
        response = post("verify/", {"token": raw})
        assert (response.status_code, response.json()) == (200, {})
    IssuedToken.objects.filter(pk=pair.row.pk).revoke(actor=None, reason="lost")
    assert refused(post("verify/", {"token": pair.access})) == (401, "invalid_grant")
    assert post("verify/", {"token": pair.refresh}).status_code == 200


def test_blacklist_revokes_this_family_only(pair: TokenPair) -> None:
    other = issue_tokens(User.objects.get(), issued_via="password")
    response = post("blacklist/", {"refresh": pair.refresh})
    assert (response.status_code, response.json()) == (200, {})
    assert states(pair) == {"revoked"} and states(other) == {"active"}
    events = {(e.actor, e.reason) for e in events_of("token.revoked")}
    assert events == {("alice", "signed out from 192.0.2.7")}
    assert refused(post("blacklist/", {"refresh": pair.refresh}))[0] == 401


@pytest.mark.parametrize("path", ["refresh/", "blacklist/"])
def test_an_access_token_is_no_refresh_token(pair: TokenPair, path: str) -> None:
    assert refused(post(path, {"refresh": pair.access})) == (401, "invalid_grant")
    assert states(pair) == {"active"}


@pytest.mark.parametrize(
    ("path", "field"),
    [("refresh/", "refresh"), ("verify/", "token"), ("blacklist/", "refresh")],
)
def test_a_token_bound_to_networks_counts_there_only(path: str, field: str) -> None:
    alice = account("alice", "User")
    pair = issue_tokens(alice, issued_via="password", networks="10.0.0.0/8")
    body = {field: pair.refresh}
    if path != "blacklist/":
        assert refused(post(path, body)) == (401, "invalid_grant")
        if path == "verify/":
            assert refused(post(path, {"token": pair.access}))[0] == 401
    assert post(path, body, REMOTE_ADDR="10.1.2.3").status_code == 200


@pytest.mark.parametrize(
    ("path", "field"),
    [("refresh/", "refresh"), ("verify/", "token"), ("blacklist/", "refresh")],
)
@pytest.mark.parametrize(
    ("raw", "status", "error"),
    [
        ("nonsense", 401, "invalid_grant"),
        ("x" * 16_384, 401, "invalid_grant"),
        ("x" * 16_385, 400, "invalid_request"),
        ("", 400, "invalid_request"),
        (None, 400, "invalid_request"),
        (["x"], 400, "invalid_request"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_wrong_token_gets_the_code_of_the_rfc(
    path: str, field: str, raw: Any, status: int, error: str
) -> None:
    assert refused(post(path, {field: raw})) == (status, error)


def test_an_oauth_clients_token_is_not_refreshed_here() -> None:
    """It belongs to the client, which authenticates at /oauth/token."""
    alice, client = account("alice", "User"), oauth_client()
    pair = issue_tokens(
        alice, issued_via="device", client_id=client.client_id, opaque=True
    )
    body = {"refresh": pair.refresh}
    assert refused(post("refresh/", body)) == (401, "invalid_grant")


# All four


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"[" * 50_000, "application/json", 400),
        (b"<a/>", "text/xml", 415),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_malformed_body_is_an_invalid_request(
    path: str, body: bytes, kind: str, status: int
) -> None:
    response = post(path, body, content_type=kind)
    assert refused(response) == (status, "invalid_request")


@pytest.mark.parametrize("path", PATHS)
def test_only_post_is_served_without_a_csrf_token(path: str) -> None:
    strict = Client(enforce_csrf_checks=True)
    assert refused(strict.get(f"/api/token/{path}")) == (405, "invalid_request")
    answer = strict.post(f"/api/token/{path}", "{}", content_type="application/json")
    assert refused(answer) == (400, "invalid_request")


def test_an_unknown_exception_is_raised_again(
    pair: TokenPair, monkeypatch: Any
) -> None:
    def fails(*args: Any, **options: Any) -> None:
        raise LookupError("a fault")

    monkeypatch.setattr("accounts.api.serializers.rotate_refresh_token", fails)
    with pytest.raises(LookupError, match="a fault"):
        post("refresh/", {"refresh": pair.refresh})


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.InvalidScope("s"), (400, "invalid_scope", "s")),
        (errors.InvalidGrant("g"), (401, "invalid_grant", "g")),
        (errors.SecondFactorRequired("f"), (401, "second_factor_required", "f")),
        (errors.OAuthError("o"), (401, "invalid_request", "o")),
        (RateLimited("r", 3), (429, "too_many_requests", "r")),
        (RateLimitUnavailable("u", 3), (503, "temporarily_unavailable", "u")),
        (
            exceptions.ValidationError({"a": ["b", "c"], "d": ["e"]}),
            (400, "invalid_request", "a: b c d: e"),
        ),
        (
            exceptions.AuthenticationFailed("secret detail"),
            (401, "invalid_grant", WRONG_CREDENTIALS),
        ),
        (TokenError("secret detail"), (401, "invalid_grant", WRONG_CREDENTIALS)),
        (
            RecursionError(),
            (400, "invalid_request", "The body is nested too deeply."),
        ),
        (exceptions.NotFound("n"), (404, "invalid_request", "n")),
        (exceptions.Throttled(detail="t"), (429, "invalid_request", "t")),
        (ValueError("v"), None),
        (KeyError("k"), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_exception_has_its_status_and_code(
    error: Exception, expected: tuple[int, str, str] | None
) -> None:
    assert oauth_error_of(error) == expected


def test_errors_of_a_list_are_one_line() -> None:
    error = exceptions.ValidationError([ErrorDetail("a"), ErrorDetail("b")])
    assert validation_message(error) == "a b"


def test_a_busy_server_is_told_when_to_retry(user: User, monkeypatch: Any) -> None:
    def busy(*args: Any) -> None:
        raise RateLimitUnavailable("Later.", 12.1)

    monkeypatch.setattr("accounts.api.serializers.check_otp", busy)
    response = sign_in()
    assert refused(response) == (503, "temporarily_unavailable")
    assert response["Retry-After"] == "13"


def test_other_errors_have_no_retry_after(user: User) -> None:
    assert not sign_in(password="wrong").has_header("Retry-After")


# The JWK Set


@pytest.mark.spec("RFC 7517 5")
def test_the_public_keys_are_published() -> None:
    key = SigningKey.objects.ensure_active()
    response = Client().get("/oauth/jwks.json")
    [published] = [k for k in response.json()["keys"] if k["kid"] == key.kid]
    assert response.status_code == 200
    assert response["Cache-Control"] == "public, max-age=60"
    assert published["use"] == "sig"
    assert all("d" not in one for one in response.json()["keys"])
    assert Client().head("/oauth/jwks.json").status_code == 200


@pytest.mark.parametrize("strict", [True, False])
def test_the_keys_cannot_be_posted(strict: bool) -> None:
    response = Client(enforce_csrf_checks=strict).post("/oauth/jwks.json")
    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")


def test_the_tokens_are_for_this_server(user: User) -> None:
    from accounts.tokens import jwts

    claims = jwts.verify(sign_in().json()["access"])
    assert (claims["iss"], claims["aud"]) == (
        settings.ISSUER_URL,
        settings.RESOURCE_URL,
    )
