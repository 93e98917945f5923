"""Only a personal token with the scope portico:admin opens /api/v1/."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.errors import InvalidScope
from accounts.models import AuditEvent, IssuedToken, User
from accounts.models.roles import ADMIN_API
from accounts.portal.personal_tokens import TokenForm
from accounts.tokens.issue import issue_personal_token, issue_tokens
from accounts.tokens.principal import Unauthenticated, authenticate, verify_access
from mcp_bridge.access.explain import refusal_text, token_principal
from tests.support.admin_api import Caller, api_token, member_of
from tests.support.static_files import UNCOLLECTED
from tests.support.users import account, browser_of


def personal(user: User, scope: str) -> str:
    return issue_personal_token(
        user, name="x", scope=scope, lifetime=timedelta(days=1)
    )[1]


def refusal(raw: str, user: User) -> str:
    """The recorded reason of a 401."""
    answer = Caller(user, raw).get("people/")
    assert answer.status_code == 401, answer.content
    assert 'error="invalid_token"' in answer["WWW-Authenticate"]
    assert "Create one in the portal" in answer.json()["detail"]
    event = AuditEvent.objects.filter(action="request.refused").first()
    return event.reason if event is not None else ""


def test_other_tokens_are_refused(db: None) -> None:
    """Tokens for /mcp, and what is no token."""
    user = member_of("superuser")
    access = issue_tokens(user, issued_via="password").access
    for raw in (access, personal(user, "mcp"), "nonsense", "portico_pat_x"):
        assert refusal(raw, user) in ("wrong_audience", "unknown_token_or_user")


def test_a_refusal_names_the_token_its_client_and_owner(db: None) -> None:
    user = member_of("superuser")
    raw = api_token(user, networks="192.0.2.0/24")
    row = IssuedToken.objects.get(user=user)
    assert refusal(raw, user) == "wrong_network"
    event = AuditEvent.objects.get(action="request.refused")
    assert (event.actor, event.actor_id) == ("superuser", user.pk)
    assert (event.token_id, event.client_id) == (row.jti, row.client_id)
    assert event.object == "personal token of superuser" and row.client_id
    assert (event.decision, event.address) == ("denied", "127.0.0.1")


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("expires_at", timezone.now() - timedelta(1), "expired"),
        ("networks", "192.0.2.0/24", "wrong_network"),
        ("last_used_at", timezone.now() - timedelta(2), "idle"),
    ],
)
def test_the_checks_of_mcp_apply(
    db: None, settings: Any, column: str, value: Any, reason: str
) -> None:
    user = member_of("superuser")
    settings.TOKEN_MAX_IDLE = 3600
    raw = api_token(user)
    assert Caller(user, raw).get("people/").status_code == 200
    IssuedToken.objects.filter(user=user).update(**{column: value})
    assert refusal(raw, user) == reason


def test_a_revoked_token_is_refused(db: None) -> None:
    user = member_of("superuser")
    raw = api_token(user)
    IssuedToken.objects.filter(user=user).revoke(actor=user, reason="test")
    assert refusal(raw, user) == "revoked"


def test_a_use_is_stored(db: None) -> None:
    user = member_of("superuser")
    Caller(user).get("people/")
    row = IssuedToken.objects.get(user=user)
    assert row.last_used_at is not None and row.last_used_from == "127.0.0.1"


def test_mcp_refuses_the_token(db: None) -> None:
    """It calls no tool, whatever the roles of its owner."""
    raw = api_token(member_of("superuser"))
    for check in (authenticate, verify_access):
        with pytest.raises(Unauthenticated) as refused:
            check(raw)
        assert refused.value.reason == "wrong_audience"


def test_staff_rights_count_at_every_request(db: None, settings: Any) -> None:
    user = member_of("superuser")
    member_of("superuser", "another")
    caller = Caller(user)
    settings.STAFF_SECOND_FACTOR = True
    answer = caller.get("people/")
    assert answer.status_code == 403 and "second factor" in answer.json()["detail"]
    settings.STAFF_SECOND_FACTOR = False
    User.objects.filter(pk=user.pk).update(is_staff=False)
    answer = caller.get("people/")
    assert answer.status_code == 403 and "staff" in answer.json()["detail"]
    User.objects.filter(pk=user.pk).update(is_active=False)
    assert caller.get("people/").status_code == 401


def test_a_cookie_opens_nothing(db: None) -> None:
    """So no page of another site can send a change (CSRF)."""
    browser = browser_of(member_of("superuser"))
    answer = browser.get("/api/v1/people/")
    assert answer.status_code == 401 and "detail" in answer.json()
    assert answer["WWW-Authenticate"].startswith("Bearer")
    client = Client(headers={"authorization": "Basic eDp5"})
    assert client.get("/api/v1/people/").status_code == 401


def test_the_own_browser_stays_signed_in(db: None, settings: Any) -> None:
    """A request with a token and a cookie changes no session."""
    settings.STORAGES = UNCOLLECTED
    user = member_of("superuser")
    browser = browser_of(user)
    raw = api_token(user)
    answer = browser.get("/api/v1/people/", headers={"authorization": f"Bearer {raw}"})
    assert answer.status_code == 200 and not answer.cookies
    assert browser.get("/portal/tokens/").status_code == 200


@pytest.mark.parametrize("scope", [f"{ADMIN_API} mcp", f"mcp {ADMIN_API}"])
def test_the_scope_stands_alone(db: None, scope: str) -> None:
    with pytest.raises(InvalidScope, match="no other scope"):
        personal(member_of("superuser"), scope)


def test_only_staff_get_the_scope(db: None, settings: Any) -> None:
    with pytest.raises(InvalidScope, match="Only staff"):
        personal(account("bob", "User"), ADMIN_API)
    settings.STAFF_SECOND_FACTOR = True
    with pytest.raises(InvalidScope, match="Only staff"):
        personal(member_of("superuser"), ADMIN_API)


def test_the_portal_offers_the_scope_to_staff(db: None) -> None:
    """Off at first, and alone."""
    bob, root = account("bob", "User"), member_of("superuser")
    fields = {"name": "x", "days": "9", "networks": ""}
    assert ADMIN_API not in dict(TokenForm(bob).fields["scopes"].choices)  # type: ignore[attr-defined]
    refused = TokenForm(bob, {**fields, "scopes": [ADMIN_API]})
    assert not refused.is_valid()
    form = TokenForm(root)
    assert form.fields["scopes"].initial == ["mcp"]
    both = TokenForm(root, {**fields, "scopes": [ADMIN_API, "mcp"]})
    assert "cannot use tools" in str(both.errors)
    assert TokenForm(root, {**fields, "scopes": [ADMIN_API]}).is_valid()


def test_the_access_check_explains_the_token(db: None) -> None:
    user = member_of("superuser")
    api_token(user)
    with pytest.raises(Unauthenticated) as refused:
        token_principal(IssuedToken.objects.get(user=user))
    assert "administration API" in refusal_text(refused.value)
