"""Test users: alice may call, bob may not, carol runs the admin."""

from __future__ import annotations

from accounts.models import OAuthClient, Role, RoleAssignment, User
from tests.support.password import PASSWORD

__all__ = ["PASSWORD", "make_user", "public_client"]


def public_client(client_id: str) -> str:
    """The id of a public client, created if it does not exist."""
    OAuthClient.objects.get_or_create(client_id=client_id, client_type="public")
    return client_id


def make_user(name: str, *roles: str, admin: bool = False) -> User:
    """An account with exactly these roles, created or reset."""
    user: User | None = User.objects.filter(username=name).first()
    if user is None:
        user = User.objects.create_user(
            name, password=PASSWORD, is_staff=admin, is_superuser=admin
        )
    if not user.is_active:
        user.is_active = True
        user.save(update_fields=["is_active"])
    RoleAssignment.objects.filter(user=user).exclude(role__name__in=roles).delete()
    for role in roles:
        RoleAssignment.objects.grant(user, Role.objects.get(name=role))
    return user
