"""Rows in every list of the admin."""

from __future__ import annotations

from datetime import timedelta

from allauth.socialaccount.models import SocialAccount
from axes.models import AccessAttempt
from django.contrib.sessions.models import Session
from django.utils import timezone

from accounts.models import (
    AuditSeal,
    DocumentCopy,
    DocumentHost,
    Invitation,
    IssuedToken,
    OAuthClient,
    OAuthGrant,
    RoleAssignment,
    Scope,
    SigningKey,
    User,
)
from mcp_bridge.models import Primitive, UpstreamServer
from tests.support.admin_browser import add_token
from tests.support.delegation_scene import HOST, PEOPLE, set_up
from tests.support.notification_rows import channel_row, delivery_row
from tests.support.users import account


def set_scene() -> None:
    """carol is a superuser with rows in every list; mallory has all permissions."""
    for name, _roles in PEOPLE:
        above = name == "carol"
        account(name, is_staff=above, is_superuser=above)
    set_up()
    add_rows_of(User.objects.get(username="carol"))


def add_rows_of(carol: User) -> None:
    """Rows of a superuser in the lists that `set_up` leaves empty."""
    SigningKey.objects.rotate(actor="the scene")
    old = SigningKey.objects.get(state="active").kid
    SigningKey.objects.rotate(actor="the scene")
    Session.objects.create(
        session_key="0" * 32,
        session_data="x",
        expire_date=timezone.now() + timedelta(hours=1),
    )
    robot = OAuthClient.objects.get(client_id="acts-as-carol")
    for known in ("portico", "acts-as-carol", "in-the-office"):
        add_token(carol, client_id=known, kid=old)
    OAuthGrant.objects.create(
        user=carol,
        application=robot,
        code="c" * 64,
        expires=timezone.now() + timedelta(minutes=1),
    )
    IssuedToken.objects.filter(pk=add_token(carol).pk).revoke(actor="x", reason="y")
    DocumentHost.objects.create(host=HOST)
    copy = DocumentCopy.objects.create(
        client_id=f"https://{HOST}/client.json", name="Agent", document={}
    )
    OAuthClient.objects.filter(client_id=copy.client_id).update(document_copy=copy)
    SocialAccount.objects.create(user=carol, provider="corp-of-scene", uid="1")
    AccessAttempt.objects.create(
        username="carol", ip_address="192.0.2.7", failures_since_start=4
    )
    AuditSeal.objects.all().seal(most=1)
    Invitation.objects.issue(account("ivan", "Admin"), actor=carol)
    delivery_row(channel_row(), state="failed")
    scope, _new = Scope.objects.get_or_create(name="Payroll.Read")
    tool = Primitive.objects.create(
        kind="tool", name="pay", enabled=False, sensitive=True
    )
    tool.required_scopes.set([scope])
    Primitive.objects.create(
        kind="tool", name="open", state="changed", changed_at=timezone.now()
    )
    for name, on in (("shop", True), ("closed", False)):
        url = f"https://{name}.example/mcp"
        UpstreamServer.objects.create(name=name, url=url, enabled=on)
    RoleAssignment.objects.filter(user=carol, role__name="Ruled").update(
        expires_at=timezone.now() + timedelta(days=1)
    )
    OAuthClient.objects.filter(registration_source="cimd").update(blocked=True)
    Primitive.objects.create(
        kind="tool", name="gone", enabled=False, vanished_at=timezone.now()
    )
