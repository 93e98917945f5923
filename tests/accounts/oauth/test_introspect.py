"""POST /oauth/introspect (RFC 7662)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings

from accounts.models import IssuedToken, OAuthClient, User
from accounts.tokens import jwts
from accounts.tokens.issue import issue_personal_token, issue_tokens
from tests.support.oauth_requests import (
    SECRET,
    basic,
    confidential_client,
    error_of,
    oauth_client,
    post_form,
)
from tests.support.users import account

pytestmark = pytest.mark.django_db
MEMBERS = ("iss", "aud", "sub", "client_id", "jti", "iat", "exp", "scope")


@pytest.fixture
def watcher() -> OAuthClient:
    return confidential_client("watcher")


@pytest.fixture
def user() -> User:
    return account("alice", "User")


def introspect(raw: str | None, **options: Any) -> Any:
    headers = {**basic("watcher"), **options}
    return post_form("/oauth/introspect", {"token": raw}, **headers)


@pytest.mark.spec("RFC 7662 2")
@pytest.mark.spec("RFC 7662 2.2")
def test_a_live_token_is_described(watcher: OAuthClient, user: User) -> None:
    pair = issue_tokens(user, issued_via="command", scope="mcp User.Read")
    claims = jwts.verify(pair.access)
    assert introspect(pair.access).json() == {
        "active": True,
        "token_type": "Bearer",
        "username": "alice",
        **{name: claims[name] for name in MEMBERS},
    }
    assert claims["aud"] == settings.RESOURCE_URL


def test_a_personal_token_is_described(watcher: OAuthClient, user: User) -> None:
    row, raw = issue_personal_token(
        user, name="script", scope="mcp", lifetime=timedelta(hours=1)
    )
    assert introspect(raw).json() == {
        "active": True,
        "token_type": "Bearer",
        "username": "alice",
        "sub": str(user.pk),
        "client_id": "portico",
        "jti": row.jti,
        "exp": int(row.expires_at.timestamp()),
        "scope": "mcp",
    }


@pytest.mark.spec("RFC 7662 2.2: nothing about other tokens")
def test_other_tokens_are_not_active(watcher: OAuthClient, user: User) -> None:
    pair = issue_tokens(user, issued_via="command")
    revoked = issue_tokens(user, issued_via="command")
    IssuedToken.objects.filter(pk=revoked.row.pk).revoke(actor=None, reason="lost")
    for raw in ("unknown", pair.refresh, revoked.access):
        response = introspect(raw)
        assert (response.status_code, response.json()) == (200, {"active": False})
    User.objects.update(is_active=False)
    assert introspect(pair.access).json() == {"active": False}


def test_a_token_bound_to_networks_is_active_there_only(
    watcher: OAuthClient, user: User
) -> None:
    pair = issue_tokens(user, issued_via="command", networks="10.0.0.0/8")
    inside = introspect(pair.access, REMOTE_ADDR="10.1.2.3")
    outside = introspect(pair.access, REMOTE_ADDR="192.0.2.1")
    assert inside.json()["active"] is True
    assert outside.json() == {"active": False}


def test_a_public_client_cannot_introspect(user: User) -> None:
    """Also one that an administrator approved."""
    oauth_client("open", approved=True)
    form = {"client_id": "open", "token": "x"}
    response = post_form("/oauth/introspect", form)
    assert error_of(response) == (401, "invalid_client")
    assert response.json()["error_description"] == "Introspection needs a secret."


@pytest.mark.spec("RFC 7662 4: a secret alone proves nothing")
@pytest.mark.parametrize(
    ("source", "approved", "status"),
    [("manual", False, 200), ("dcr", True, 200), ("dcr", False, 403)],
)
def test_a_client_that_registered_itself_needs_approval(
    user: User, source: str, approved: bool, status: int
) -> None:
    confidential_client("watcher", registration_source=source, approved=approved)
    raw = issue_tokens(user, issued_via="command").access
    response = introspect(raw)
    assert response.status_code == status
    if status == 403:
        assert error_of(response) == (403, "unauthorized_client")


@pytest.mark.parametrize("raw", [None, ""])
def test_the_token_is_required(watcher: OAuthClient, raw: str | None) -> None:
    assert error_of(introspect(raw)) == (400, "invalid_request")


def test_a_wrong_secret_is_refused(watcher: OAuthClient) -> None:
    response = introspect("x", **basic("watcher", f"{SECRET}x"))
    assert error_of(response) == (401, "invalid_client")
