"""Users, clients and tokens on which delegated administration is tried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.contrib.auth.models import Group, Permission
from django.utils import timezone

from accounts.models import (
    AccessRequest,
    ClaimRule,
    Consent,
    DocumentHost,
    IssuedToken,
    OAuthClient,
    Role,
    RoleAssignment,
    Scope,
    SigningKey,
    SignInProvider,
    User,
)
from accounts.tokens.issue import TokenPair, issue_tokens
from mcp_bridge.models import Primitive
from tests.support.users import make_user, unguarded_users

PEOPLE = (
    ("alice", ("User",)),
    ("bert", ("Guest",)),
    ("carol", ("Admin", "Ruled")),
    ("paul", ("Payroll",)),
    ("olga", ("Office",)),
    ("mallory", ("Guest",)),
)
"""carol is a superuser; mallory tries to extend her rights."""
NAMES = tuple(name for name, _roles in PEOPLE)
ROLES = {
    "Payroll": ("Payroll.Read", ""),
    "Office": ("User.Read", "10.99.0.0/16"),
    "Ruled": ("Guest.Read", ""),
    "Empty": ("", ""),
}
"""Role -> its scope, and its networks."""
HOST = "agents.example"


def staff(name: str, *roles: str, group: str = "", everything: bool = False) -> User:
    """A staff member without superuser status."""
    somebody = make_user(name, *roles)
    somebody.is_staff = True
    somebody.save()
    somebody.groups.set(Group.objects.filter(name=group))
    somebody.user_permissions.set(Permission.objects.all() if everything else [])
    return somebody


def set_up() -> None:
    """At least one row per relevant model; changed rows are reset."""
    for name, (scope, networks) in ROLES.items():
        role, _new = Role.objects.update_or_create(
            name=name, defaults={"networks": networks}
        )
        role.scopes.set([Scope.objects.get_or_create(name=scope)[0]] if scope else [])
    for name, roles in PEOPLE:
        make_user(name, *roles, admin=name == "carol")
    staff("mallory", "Guest", everything=True)
    requests()
    clients()
    provider()
    carol = User.objects.get(username="carol")
    Authenticator.objects.get_or_create(user=carol, type="recovery_codes", data={})
    UserSession.objects.get_or_create(
        user=carol, session_key="0" * 32, defaults={"ip": "192.0.2.1"}
    )


def requests() -> None:
    """mallory and bert request more than they have."""
    AccessRequest.objects.filter(state="open").delete()
    for name in ("mallory", "bert"):
        for role in ("Admin", "Guest"):
            AccessRequest.objects.create(
                user=User.objects.get(username=name),
                role=Role.objects.get(name=role),
                reason="let me",
            )


def clients() -> None:
    """One that acts as carol, one that does and named itself, one in a network."""
    carol = User.objects.get(username="carol")
    shared = {
        "client_type": "confidential",
        "authorization_grant_type": "authorization-code",
        "token_endpoint_auth_method": "client_secret_basic",
        "blocked": False,
    }
    machine = {"grant_types": ["client_credentials"], "service_account": carol}
    acting = {**shared, **machine}
    office = {
        "grant_types": ["authorization_code"],
        "redirect_uris": "https://office.example/cb",
        "networks": "10.99.0.0/16",
    }
    documented = f"https://{HOST}/client.json"
    for known, fields in {
        "acts-as-carol": {**acting, "name": "Robot"},
        documented: {**acting, "name": "Agent", "registration_source": "cimd"},
        "in-the-office": {**shared, **office, "name": "Office"},
    }.items():
        client, _new = OAuthClient.objects.update_or_create(
            client_id=known, defaults=fields
        )
        if known != "acts-as-carol":
            continue
        Consent.objects.get_or_create(user=carol, client=client, scope="mcp")
    DocumentHost.objects.filter(host=HOST).delete()


def provider() -> None:
    """One claim gives mallory's role, another a role without users."""
    corp, _new = SignInProvider.objects.update_or_create(
        slug="corp-of-scene",
        defaults={
            "name": "Corp",
            "issuer": "https://corp.example",
            "client_id": "x",
            "enabled": False,
        },
    )
    for role in ("Guest", "Empty"):
        ClaimRule.objects.get_or_create(
            provider=corp, claim="groups", value=role, role=Role.objects.get(name=role)
        )


def add_tokens() -> None:
    """Valid tokens of all users, some limited; the first key is retiring."""
    for name in NAMES:
        token_of(name)
    gone = IssuedToken.objects.filter(jti=token_of("bert").row.jti)
    gone.revoke(actor="the scene", reason="one that must not come back")
    SigningKey.objects.rotate(actor="the scene")
    for name in ("alice", "carol"):
        token_of(name, networks="10.99.0.0/16")
        token_of(name, client_id="in-the-office")


def token_of(name: str, **options: Any) -> TokenPair:
    """A token that outlasts the tests."""
    user = User.objects.get(username=name)
    lifetime = timedelta(hours=2)
    return issue_tokens(user, issued_via="password", lifetime=lifetime, **options)


@contextmanager
def restore_access() -> Iterator[None]:
    """Restore access for later tests."""
    primitives = list(Primitive.objects.prefetch_related("required_scopes"))
    roles = list(Role.objects.prefetch_related("scopes"))
    known = set(User.objects.values_list("pk", flat=True))
    yield
    for primitive in primitives:
        primitive.save()
        primitive.required_scopes.set(primitive.required_scopes.all())
    for role in roles:
        role.save()
        role.scopes.set(role.scopes.all())
    unguarded_users().exclude(pk__in=known).delete()
    RoleAssignment.objects.filter(role__name__in=ROLES).delete()
    AccessRequest.objects.filter(role__name__in=ROLES).delete()
    SignInProvider.objects.filter(slug="corp-of-scene").delete()
    UserSession.objects.filter(session_key="0" * 32).delete()
    client_ids = ("acts-as-carol", "in-the-office", f"https://{HOST}/client.json")
    OAuthClient.objects.filter(client_id__in=client_ids).delete()
    Role.objects.filter(name__in=ROLES).delete()
    Authenticator.objects.filter(user__username="carol").delete()


def an_hour_from_now() -> Any:
    """An end before that of grants without an end."""
    return timezone.now() + timedelta(hours=1)
