"""Rows of accounts for unit tests, made without passwords, keys or pages."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.db import connection
from django.db.models import Model, QuerySet
from django.utils import timezone

from accounts.models import (
    AuditEvent,
    Consent,
    IssuedToken,
    OAuthClient,
    OAuthDeviceGrant,
    OAuthGrant,
    User,
)
from accounts.models.statements.queries import CompiledQuery

NUMBERS = count(1)


def soon() -> datetime:
    return timezone.now() + timedelta(hours=1)


def past() -> datetime:
    return timezone.now() - timedelta(hours=1)


def person(name: str, **columns: Any) -> User:
    """An account without a password, so that nothing is hashed."""
    user: User = User.objects.create(username=name, **columns)
    return user


def token_row(user: User, **columns: Any) -> IssuedToken:
    """A token in the list; nothing is signed."""
    given = {
        "jti": uuid4().hex,
        "kind": "access",
        "issued_via": "command",
        "username": user.username,
        "client_id": "portico",
        "scope": "mcp",
        "family": uuid4(),
        "issued_at": timezone.now(),
        "expires_at": soon(),
        **columns,
    }
    return IssuedToken.objects.create(user=user, **given)


def client_row(client_id: str, **columns: Any) -> OAuthClient:
    client: OAuthClient = OAuthClient.objects.create(client_id=client_id, **columns)
    return client


def code_row(user: User, client: OAuthClient, **columns: Any) -> OAuthGrant:
    given = {"code": f"code {next(NUMBERS)}", "expires": soon(), **columns}
    grant: OAuthGrant = OAuthGrant.objects.create(
        user=user, application=client, redirect_uri="https://a.example/", **given
    )
    return grant


def device_row(client_id: str, **columns: Any) -> OAuthDeviceGrant:
    number = next(NUMBERS)
    given = {"user_code": f"u{number}", "expires": soon(), **columns}
    grant: OAuthDeviceGrant = OAuthDeviceGrant.objects.create(
        client_id=client_id, device_code=f"d{number}", **given
    )
    return grant


def consent_row(user: User, client: OAuthClient, scope: str = "mcp") -> Consent:
    return Consent.objects.create(user=user, client=client, scope=scope)


def session_row(user: User, key: str = "", ends: datetime | None = None) -> UserSession:
    """A browser session of the user; `key` is its stored key."""
    key = key or f"session{next(NUMBERS)}"
    Session.objects.create(pk=key, session_data="", expire_date=ends or soon())
    row: UserSession = UserSession.objects.create(
        user=user, session_key=key, ip="192.0.2.1"
    )
    return row


def reload(*rows: Model) -> None:
    """Read the rows again."""
    for row in rows:
        row.refresh_from_db()


def events_of(action: str) -> list[AuditEvent]:
    """The events of this action, the oldest first."""
    return list(AuditEvent.objects.filter(action=action).order_by("id"))


def open_transactions() -> int:
    """How many transactions are open besides the test's."""
    blocks = connection.atomic_blocks
    return sum(not getattr(block, "_from_testcase", False) for block in blocks)


def record_locks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models whose rows are locked from now on."""
    locked: list[str] = []
    honest = QuerySet.select_for_update

    def lock(rows: Any, *args: Any, **options: Any) -> Any:
        locked.append(rows.model.__name__)
        return honest(rows, *args, **options)

    def rows(query: CompiledQuery, **given: Any) -> Any:
        """Compiled once, it locks each time."""
        before = list(locked)
        found = ask(query, **given)
        plan = query.plans[connection.vendor]
        locked[:] = [*before, *([query.model.__name__] if plan.locks else ())]
        return found

    ask = CompiledQuery.rows
    monkeypatch.setattr(QuerySet, "select_for_update", lock)
    monkeypatch.setattr(CompiledQuery, "rows", rows)
    return locked
