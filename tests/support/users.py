"""Test users: alice may call, bob may not, carol runs the admin."""

from __future__ import annotations

from functools import cache
from typing import Any

from allauth.account.internal.flows.login import record_authentication
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
)
from django.contrib.auth.hashers import make_password
from django.db.models import QuerySet
from django.http import HttpRequest
from django.test import Client

from accounts.http.session_store import SessionStore, current_key
from accounts.models import OAuthClient, Role, RoleAssignment, User
from tests.support.password import PASSWORD
from tests.support.quick_hashing import shipped_cost

__all__ = [
    "PASSWORD",
    "account",
    "browser_of",
    "hash_as_shipped",
    "make_user",
    "public_client",
    "unguarded_users",
]


def public_client(client_id: str) -> str:
    """The id of a public client, created if it does not exist."""
    OAuthClient.objects.get_or_create(client_id=client_id, client_type="public")
    return client_id


@cache
def hashed_password(*_hashers: str) -> str:
    """PASSWORD, hashed once by the first of these."""
    return make_password(PASSWORD)


def hash_as_shipped(*names: str) -> None:
    """Give these accounts the hash of PASSWORD that production would store.

    For tests of what depends on its cost, at servers without `tests.apps.wait_guard`.
    """
    with shipped_cost():
        User.objects.filter(username__in=names).update(password=make_password(PASSWORD))


def unguarded_users() -> QuerySet[User]:
    """All accounts, for tests that remove the last superuser."""
    return QuerySet(User)


def make_user(name: str, *roles: str, admin: bool = False) -> User:
    """An account with exactly these roles, created or reset."""
    user: User | None = User.objects.filter(username=name).first()
    if user is None:
        user = User.objects.create(
            username=name,
            password=hashed_password(*settings.PASSWORD_HASHERS),
            is_staff=admin,
            is_superuser=admin,
        )
    if not user.is_active:
        user.is_active = True
        user.save(update_fields=["is_active"])
    rows = RoleAssignment.objects.filter(user=user)
    columns = ("role__name", "expires_at", "reason", "granted_by")
    if set(rows.values_list(*columns)) == {(role, None, "", None) for role in roles}:
        # Writing would empty the caches of every server.
        return user
    rows.exclude(role__name__in=roles).delete()
    for role in roles:
        RoleAssignment.objects.grant(user, Role.objects.get(name=role))
    return user


def account(name: str, *roles: str, **columns: object) -> User:
    """A new account with these roles and without a password: nothing is hashed."""
    user: User = User.objects.create(username=name, password="!", **columns)
    for role in roles:
        RoleAssignment.objects.grant(user, Role.objects.get(name=role))
    return user


def browser_of(user: User, **options: Any) -> Client:
    """Django's test client, signed in a moment ago and listed as a session.

    Only the rows of the session are written: signing in would also record it.
    """
    client = Client(**options)
    request = HttpRequest()
    request.session = SessionStore()
    request.session.update(
        {
            SESSION_KEY: str(user.pk),
            BACKEND_SESSION_KEY: settings.AUTHENTICATION_BACKENDS[0],
            HASH_SESSION_KEY: user.get_session_auth_hash(),
        }
    )
    record_authentication(request, user, "password", reauthenticated=True)
    request.session.save()
    client.cookies[settings.SESSION_COOKIE_NAME] = str(request.session.session_key)
    UserSession.objects.create(
        user=user,
        session_key=current_key(request),
        ip="127.0.0.1",
        user_agent="Django's test client",
    )
    return client
