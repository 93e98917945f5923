"""POST /oauth/revoke (RFC 7009)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import IssuedToken, OAuthClient, User
from accounts.tokens.issue import TokenPair, issue_tokens
from tests.support.model_rows import events_of
from tests.support.oauth_requests import (
    error_of,
    oauth_client,
    post_form,
)
from tests.support.users import account

pytestmark = pytest.mark.django_db


@pytest.fixture
def client() -> OAuthClient:
    return oauth_client()


def issued(client: OAuthClient) -> TokenPair:
    alice = User.objects.filter(username="alice").first()
    return issue_tokens(
        alice or account("alice", "User"),
        issued_via="authorization_code",
        client_id=client.client_id,
        opaque=True,
    )


def revoke(client: OAuthClient, raw: str | None, **more: str) -> Any:
    form = {"client_id": client.client_id, "token": raw, **more}
    return post_form("/oauth/revoke", form)


def state(pair: TokenPair) -> tuple[str, str]:
    """States of the access and of the refresh token."""
    rows = IssuedToken.objects.filter(family=pair.row.family)
    kinds = {row.kind: row.state for row in rows}
    return kinds["access"], kinds["refresh"]


@pytest.mark.spec("RFC 7009 2.1")
def test_an_access_token_is_revoked_alone(client: OAuthClient) -> None:
    pair, other = issued(client), issued(client)
    response = revoke(client, pair.access)
    assert (response.status_code, response.json()) == (200, {})
    assert state(pair) == ("revoked", "active")
    assert state(other) == ("active", "active")


@pytest.mark.spec("RFC 7009 2.1")
def test_a_refresh_token_is_revoked_with_its_family(client: OAuthClient) -> None:
    pair, other = issued(client), issued(client)
    assert revoke(client, pair.refresh).status_code == 200
    assert state(pair) == ("revoked", "revoked")
    assert state(other) == ("active", "active")


@pytest.mark.spec("RFC 7009 2.1: a client revokes its own tokens")
def test_another_clients_token_stays_although_the_answer_is_the_same(
    client: OAuthClient,
) -> None:
    pair, other = issued(client), oauth_client("other")
    for raw in (pair.access, pair.refresh):
        response = revoke(other, raw)
        assert (response.status_code, response.json()) == (200, {})
    assert state(pair) == ("active", "active")
    assert not events_of("token.revoked")


@pytest.mark.spec("RFC 7009 2.2: unknown tokens are 200")
@pytest.mark.parametrize("raw", ["unknown", "a.b.c", "\u00e9"])
def test_an_unknown_token_is_no_error(client: OAuthClient, raw: str) -> None:
    response = revoke(client, raw)
    assert (response.status_code, response.json()) == (200, {})


@pytest.mark.parametrize("raw", [None, ""])
def test_the_token_is_required(client: OAuthClient, raw: str | None) -> None:
    assert error_of(revoke(client, raw)) == (400, "invalid_request")


def test_an_unknown_hint_does_not_matter(client: OAuthClient) -> None:
    """RFC 7009 2.1."""
    pair = issued(client)
    revoke(client, pair.access, token_type_hint="refresh_token")
    assert state(pair) == ("revoked", "active")


def test_an_expired_refresh_token_still_ends_its_family(client: OAuthClient) -> None:
    pair = issued(client)
    past = timezone.now() - timedelta(seconds=1)
    rows = IssuedToken.objects.filter(family=pair.row.family)
    rows.filter(kind="refresh").update(expires_at=past)
    assert revoke(client, pair.refresh).status_code == 200
    assert state(pair) == ("revoked", "expired")


def test_each_revocation_is_recorded_with_the_owner(client: OAuthClient) -> None:
    pair = issued(client)
    revoke(client, pair.refresh)
    events = events_of("token.revoked")
    assert pair.refresh_row is not None
    assert {e.token_id for e in events} == {pair.row.jti, pair.refresh_row.jti}
    alice = User.objects.get(username="alice")
    assert {(e.actor, e.actor_id, e.client_id, e.reason) for e in events} == {
        ("alice", alice.pk, "app", "revoked by the client")
    }
    revoke(client, pair.refresh)
    assert len(events_of("token.revoked")) == 2, "nothing is left to revoke"


def test_a_deleted_owner_is_named_in_the_record(client: OAuthClient) -> None:
    pair = issued(client)
    IssuedToken.objects.update(user=None)
    revoke(client, pair.access)
    assert [(e.actor, e.actor_id) for e in events_of("token.revoked")] == [
        ("alice", None)
    ]
