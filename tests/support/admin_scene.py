"""Rows in every list of the admin."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from allauth.socialaccount.models import SocialAccount
from axes.models import AccessAttempt
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from accounts.models import (
    AccessRequest,
    AuditEvent,
    AuditSeal,
    DocumentCopy,
    DocumentHost,
    Invitation,
    IssuedToken,
    OAuthClient,
    OAuthGrant,
    Role,
    RoleAssignment,
    SavedView,
    Scope,
    SigningKey,
    User,
)
from mcp_bridge.models import Primitive, UpstreamServer
from tests.support.admin_browser import add_token, staff_member
from tests.support.delegation_scene import HOST, PEOPLE, set_up
from tests.support.notification_rows import channel_row, delivery_row
from tests.support.users import account, browser_of


def reader_of_pages(user: User) -> Client:
    """The browser of `user`, with tools in the portal; every account has a password."""
    RoleAssignment.objects.grant(user, Role.objects.get(name="User"))
    User.objects.update(password="set")
    user.refresh_from_db()
    return browser_of(user)


def superuser_of_scene() -> User:
    """A superuser beside the rows of the scene, whose accounts have passwords."""
    set_scene()
    User.objects.update(password="set")
    return staff_member("root", superuser=True)


def set_scene() -> None:
    """carol is a superuser with rows in every list; mallory has all permissions."""
    for name, _roles in PEOPLE:
        above = name == "carol"
        account(name, is_staff=above, is_superuser=above)
    set_up()
    carol = User.objects.get(username="carol")
    add_rows_of(carol)
    add_past_rows(carol)


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
    delivery_row(channel_row(name="Hooks"), state="failed")
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


def add_past_rows(carol: User) -> None:
    """What is over: roles, requests, invitations, tokens, calls and sign-ins."""
    bert, gone = User.objects.get(username="bert"), timezone.now() - timedelta(days=1)
    RoleAssignment.objects.create(
        user=bert,
        role=Role.objects.get(name="Office"),
        expires_at=gone,
        reason="on call",
        granted_by=carol,
    )
    RoleAssignment.objects.filter(user=bert, role__name="Guest").update(
        expires_at=timezone.now() + timedelta(days=3), reason="visits"
    )
    add_decided(carol, gone)
    AccessAttempt.objects.create(
        username="carol", ip_address="192.0.2.8", failures_since_start=99
    )
    used = {"last_used_at": gone, "last_used_from": "192.0.2.9"}
    add_token(carol, kind="personal", name="script", networks="192.0.2.0/24", **used)
    add_token(carol, kind="personal", name="late", expires_at=gone)
    delivery_row(
        channel_row("mail", name="Team", mail_to="ops@example.com"), state="delivered"
    )
    SavedView.objects.create(owner=carol, name="Denied", query="show=denied")
    SavedView.objects.create(owner=carol, name="Failed", shared=True)
    add_calls(carol)


def add_decided(carol: User, gone: datetime) -> None:
    """Requests and invitations that wait for nobody."""
    for state in ("approved", "declined", "withdrawn"):
        AccessRequest.objects.create(
            user=carol,
            role=Role.objects.get(name="Ruled"),
            reason=f"was {state}",
            state=state,
            answer="as discussed",
            decided_by=carol,
            decided_at=gone,
        )
    over: dict[str, dict[str, Any]] = {
        "judy": {"accepted_at": gone, "accepted_from": "192.0.2.8"},
        "kate": {"withdrawn_at": gone},
        "leon": {"expires_at": gone},
    }
    for name, columns in over.items():
        person = account(name, "Admin", email=f"{name}@example.com")
        row = Invitation.objects.issue(person, actor=carol)[0]
        Invitation.objects.filter(pk=row.pk).update(**columns)


def add_calls(carol: User) -> None:
    """Calls that were allowed, failed and denied, of carol and of nobody."""
    shown = {"client_id": "portico", "address": "192.0.2.9", "object": "tool pay"}
    for columns in (
        {"decision": "allowed", "outcome": "ok", "via": "role Ruled"},
        {"decision": "allowed", "outcome": "error", "duration_ms": 12.5},
        {"decision": "denied", "reason": "missing_scope"},
    ):
        event = AuditEvent(action="tool.called", **shown, **columns)
        event.acted_by(carol).save()
    AuditEvent(action="token.refused", decision="denied", reason="expired").save()
