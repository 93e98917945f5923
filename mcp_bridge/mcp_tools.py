"""Portico's own MCP tools: who am I, and daily administration.

The tools need Admin.Write. The rules of the admin
(accounts/authorization/delegation.py) limit their effects. Tools that write are
sensitive, because a client that acts within a user's roles may read hostile text.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from django.conf import settings
from django.db import transaction
from django.db.models import Prefetch
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from accounts.audit.record import record
from accounts.authorization.delegation import (
    has_admin_permission,
    more_privileged_users,
    objection_to_granting,
    objection_to_removing,
    objection_to_revoking,
)
from accounts.authorization.mfa_enrollment import must_enroll_mfa
from accounts.http.language import in_english
from accounts.models import AuditEvent, Role, RoleAssignment, User
from accounts.parsing.moments import parse_future_moment
from accounts.parsing.text import counted
from mcp_bridge.server import current_principal, mcp

EVERYBODY = ["Guest.Read", "User.Read", "User.Write", "Admin.Write"]
ADMINS = ["Admin.Write"]
Line = Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")]
"""Text that fits a database column."""


def about_me() -> dict[str, Any]:
    """The caller as plain values; times are ISO 8601 in UTC."""
    principal = current_principal()
    ends = datetime.fromtimestamp(principal.expires_at, UTC)
    return {
        "user": principal.username,
        "roles": list(principal.roles),
        "scopes": sorted(principal.token_scopes),
        "client": principal.client_id,
        "expires_at": ends.isoformat(),
    }


@mcp.tool(scopes=EVERYBODY)
async def whoami() -> dict[str, Any]:
    """Say who you are signed in as: user, roles, token scopes, client, expiry."""
    return about_me()


@mcp.resource(
    "portico://me",
    name="me",
    mime_type="application/json",
    scopes=EVERYBODY,
    description="Who you are signed in as.",
)
async def my_account() -> dict[str, Any]:
    """The same as the tool whoami."""
    return about_me()


def _actor() -> User:
    """The calling user. Raises ToolError if the user must enrol a second factor."""
    user: User = User.objects.get(pk=current_principal().user_id)
    if must_enroll_mfa(user):
        page = f"{settings.ISSUER_URL}/portal/security/"
        raise ToolError(f"Set up a second factor first, at {page}.")
    return user


def _user(username: str) -> User:
    user: User | None = User.objects.all().named(username)
    if user is None:
        raise ToolError(f"There is no user named {username}.")
    return user


def _role(name: str) -> Role:
    role = Role.objects.filter(name=name).first()
    if role is None:
        known = ", ".join(Role.objects.values_list("name", flat=True))
        raise ToolError(f"There is no role named {name}; there are: {known}.")
    return role


def _end(text: str) -> datetime | None:
    try:
        return parse_future_moment(text) if text else None
    except ValueError as error:
        raise ToolError(str(error)) from error


def _check(rule: Callable[..., str], *about: Any) -> None:
    """Apply one rule of delegation.py. Raises ToolError with its message."""
    with in_english():
        message = rule(*about)
    if message:
        raise ToolError(message)


@mcp.tool(scopes=ADMINS)
def list_users(contains: Line = "", limit: int = 50) -> list[dict[str, Any]]:
    """List users whose name contains a text, with their unexpired roles.

    Without the permission to view users in the admin, the list omits users who outrank
    you.
    """
    actor = _actor()
    users = User.objects.filter(username__icontains=contains)
    if not has_admin_permission(actor, "accounts.view_user"):
        users = users.exclude(pk__in=more_privileged_users(actor))
    unexpired = RoleAssignment.objects.unexpired().select_related("role")
    users = users.prefetch_related(Prefetch("role_assignments", unexpired))
    return [
        {
            "user": user.username,
            "active": user.is_active,
            "roles": [grant.role.name for grant in user.role_assignments.all()],
        }
        for user in users[: max(1, min(limit, 500))]
    ]


@mcp.tool(scopes=ADMINS, sensitive=True)
def grant_role(user: Line, role: Line, reason: Line = "", until: Line = "") -> str:
    """Give a user a role; it applies from that user's next message on.

    `until` is a day or moment such as 2026-12-31, or 8h or 30d from now; empty means no
    end. You can give only what your own roles give you, and no longer than they do. A
    role that the user has already is not changed.
    """
    actor, ends = _actor(), _end(until)
    with transaction.atomic():
        holder, role_row = _user(user), _role(role)
        _check(objection_to_granting, actor, holder, role_row, ends)
        _refuse_if_held(holder, role_row)
        assignment, _new = RoleAssignment.objects.grant(
            holder, role_row, granted_by=actor, reason=reason, expires_at=ends
        )
        record("role.granted", actor=actor, object=assignment, reason=reason)
    end = f" until {ends:%Y-%m-%d %H:%M %Z}" if ends else ""
    return f"{user} now has {role}{end}."


def _refuse_if_held(user: User, role: Role) -> None:
    """Raises ToolError: its end may be a provider's or another admin's to change."""
    current = RoleAssignment.objects.filter(user=user, role=role).unexpired()
    assignment = current.select_for_update().first()
    if assignment is None:
        return
    ends = assignment.expires_at
    end = f"until {ends:%Y-%m-%d %H:%M %Z}" if ends else "without an end"
    raise ToolError(
        f"{user} already has {role}, {end}. Nothing was changed: change its end in "
        "the admin, or take it with revoke_role first."
    )


@mcp.tool(scopes=ADMINS, sensitive=True)
def revoke_role(user: Line, role: Line, reason: Line = "") -> str:
    """Take a role from a user; it applies from that user's next message on.

    You can take only what your own roles give you, and not from a superuser. With the
    last role the user's tokens are revoked too.
    """
    actor = _actor()
    with transaction.atomic():
        holder, role_row = _user(user), _role(role)
        _check(objection_to_removing, actor, holder, role_row)
        assignment = RoleAssignment.objects.filter(user=holder, role=role_row).first()
        if assignment is None:
            raise ToolError(f"{user} does not hold {role}.")
        record("role.withdrawn", actor=actor, object=assignment, reason=reason)
        assignment.withdraw(actor=actor, reason=reason or "role withdrawn")
    return f"{user} no longer has {role}."


@mcp.tool(scopes=ADMINS, sensitive=True)
def revoke_tokens(user: Line, reason: Line = "revoked over MCP") -> str:
    """Revoke every active token of a user, from the next message on.

    You cannot revoke the tokens of a user who outranks you.
    """
    actor, owner = _actor(), _user(user)
    _check(objection_to_revoking, actor, owner)
    count = owner.revoke_tokens(actor=actor, reason=reason)
    return f"{counted(count, 'token')} of {user} revoked."


@mcp.tool(scopes=ADMINS)
def recent_refusals(limit: int = 20) -> list[dict[str, Any]]:
    """List the last refused messages: when, who, what, and why.

    Without the permission to view the audit in the admin, only your own.
    """
    actor = _actor()
    denied = AuditEvent.objects.filter(decision=AuditEvent.Verdict.DENIED)
    if not has_admin_permission(actor, "accounts.view_auditevent"):
        denied = denied.filter(actor_id=actor.pk)
    return [
        {
            "at": event.at.isoformat(),
            "actor": event.actor,
            "object": event.object,
            "reason": event.reason,
            "via": event.via,
        }
        for event in denied[: max(1, min(limit, 200))]
    ]
