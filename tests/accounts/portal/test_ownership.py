"""Nobody changes another user's rows in the portal: every form, every kind of row."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.test import Client

from accounts.models import (
    AccessRequest,
    AuditEvent,
    Consent,
    IssuedToken,
    OAuthClient,
    RevokedToken,
    Role,
    User,
)
from accounts.tokens.issue import issue_personal_token, issue_tokens
from tests.support.users import browser_of

Made = Callable[[User], Any]
"""Makes a row of a user and returns the id that the form posts."""


def session(user: User) -> Any:
    browser_of(user)
    return UserSession.objects.get(user=user).pk


def personal(user: User) -> str:
    day = timedelta(days=1)
    return issue_personal_token(user, name="x", scope="mcp", lifetime=day)[0].jti


def access(user: User) -> str:
    return issue_tokens(user, issued_via="password").row.jti


def refresh(user: User) -> str:
    row = issue_tokens(user, issued_via="password").refresh_row
    assert row is not None
    return row.jti


def consent(user: User) -> Any:
    client = OAuthClient.objects.create(client_id=f"of-{user}", client_type="public")
    return Consent.objects.create(user=user, client=client, scope="mcp").pk


def access_request(user: User) -> Any:
    role = Role.objects.get(name="Admin")
    return AccessRequest.objects.create(user=user, role=role, reason="work").pk


FORMS: list[tuple[str, str, Made]] = [
    ("/portal/security/", "end", session),
    ("/portal/tokens/", "revoke", personal),
    ("/portal/tokens/", "revoke", access),
    ("/portal/tokens/", "revoke", refresh),
    ("/portal/apps/", "revoke", consent),
    ("/portal/access/", "withdraw", access_request),
]


def rows_of(user: User) -> list[Any]:
    """What the portal's forms could change."""
    models: tuple[Any, ...] = (UserSession, IssuedToken, Consent, AccessRequest)
    return [
        sorted(Session.objects.values_list("pk", flat=True)),
        *(
            list(model.objects.filter(user=user).order_by("pk").values())
            for model in models
        ),
        sorted(RevokedToken.objects.values_list("jti", flat=True)),
        User.objects.values("session_epoch", "is_active").get(pk=user.pk),
    ]


@pytest.mark.parametrize(("path", "field", "make"), FORMS)
def test_anothers_row_is_unchanged(
    browser: Client, bob: User, path: str, field: str, make: Made
) -> None:
    """An id is guessed or read in a log."""
    key = make(bob)
    before, events = rows_of(bob), AuditEvent.objects.count()
    answer = browser.post(path, {field: key})
    assert answer.status_code in (302, 404)
    assert rows_of(bob) == before and AuditEvent.objects.count() == events


@pytest.mark.parametrize(("path", "field", "make"), FORMS)
def test_the_same_form_changes_ones_own_row(
    browser: Client, alice: User, path: str, field: str, make: Made
) -> None:
    """Otherwise the test above would pass with any field."""
    if make is session:
        UserSession.objects.filter(user=alice).delete()
    key = make(alice)
    before = rows_of(alice)
    assert browser.post(path, {field: key}).status_code == 302
    assert rows_of(alice) != before


@pytest.mark.parametrize(("path", "field", "make"), FORMS)
@pytest.mark.parametrize("key", ["", "x", "-1", "9" * 30, "\x00", "²"])
def test_an_odd_id_is_no_row(
    browser: Client, alice: User, path: str, field: str, make: Made, key: str
) -> None:
    before = rows_of(alice)
    assert browser.post(path, {field: key}).status_code in (302, 404)
    assert rows_of(alice) == before


def test_the_pages_list_ones_own_rows_only(browser: Client, bob: User) -> None:
    user_agent = "the browser of bob"
    UserSession.objects.create(
        user=bob, session_key="b" * 40, ip="192.0.2.9", user_agent=user_agent
    )
    Session.objects.create(
        pk="b" * 40, session_data="", expire_date="2100-01-01T00:00:00Z"
    )
    consent(bob)
    issue_personal_token(bob, name="bob-pat", scope="mcp", lifetime=timedelta(days=1))
    AccessRequest.objects.create(
        user=bob, role=Role.objects.get(name="Admin"), reason="bob-reason"
    )
    for path in ("security", "tokens", "apps", "access"):
        page = browser.get(f"/portal/{path}/").content.decode()
        for theirs in (user_agent, "192.0.2.9", "of-bob", "bob-pat", "bob-reason"):
            assert theirs not in page, path
