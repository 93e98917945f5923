"""What Portico itself offers over MCP: who am I, and the admin's daily acts.

Admin.Write opens these tools; what they may do to whom is said by the same rules as in
the admin (accounts/authorization/delegation.py). Those that write are sensitive: a
client that acts within somebody's roles may read hostile text.
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
from mcp_bridge.server import current_principal, mcp

EVERYBODY = ["Guest.Read", "User.Read", "User.Write", "Admin.Write"]
ADMINS = ["Admin.Write"]
Line = Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")]
"""Text that fits a column of the database."""


def about_me() -> dict[str, Any]:
    """The caller in plain values; times are ISO 8601, UTC."""
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
    """Who calls. Raises ToolError where the admin would ask for a second factor."""
    found: User = User.objects.get(pk=current_principal().user_id)
    if must_enroll_mfa(found):
        where = f"{settings.ISSUER_URL}/portal/security/"
        raise ToolError(f"Set up a second factor first, at {where}.")
    return found


def _user(username: str) -> User:
    found: User | None = User.objects.filter(username=username).first()
    if found is None:
        raise ToolError(f"There is no user named {username}.")
    return found


def _role(name: str) -> Role:
    found = Role.objects.filter(name=name).first()
    if found is None:
        known = ", ".join(Role.objects.values_list("name", flat=True))
        raise ToolError(f"There is no role named {name}; there are: {known}.")
    return found


def _end(text: str) -> datetime | None:
    try:
        return parse_future_moment(text) if text else None
    except ValueError as error:
        raise ToolError(str(error)) from error


def _check(rule: Callable[..., str], *about: Any) -> None:
    """Ask one rule of delegation.py. Raises ToolError with its sentence."""
    with in_english():
        told = rule(*about)
    if told:
        raise ToolError(told)


@mcp.tool(scopes=ADMINS)
def list_users(contains: Line = "", limit: int = 50) -> list[dict[str, Any]]:
    """List users whose name contains a text, with their unexpired roles.

    Without the permission to view users in the admin: those who may do no more than
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
            "roles": [held.role.name for held in user.role_assignments.all()],
        }
        for user in users[: max(1, min(limit, 500))]
    ]


@mcp.tool(scopes=ADMINS, sensitive=True)
def grant_role(user: Line, role: Line, reason: Line = "", until: Line = "") -> str:
    """Give a user a role; it counts from that user's next message on.

    `until` is a day or moment such as 2026-12-31, or 8h or 30d from now; empty: for
    good. You can give only what your own roles give you, and no longer. A role that
    the user holds already stays as it is.
    """
    actor, ends = _actor(), _end(until)
    with transaction.atomic():
        holder, wanted = _user(user), _role(role)
        _check(objection_to_granting, actor, holder, wanted, ends)
        _refuse_if_held(holder, wanted)
        given, _new = RoleAssignment.objects.grant(
            holder, wanted, granted_by=actor, reason=reason, expires_at=ends
        )
        record("role.granted", actor=actor, object=given, reason=reason)
    end = f" until {ends:%Y-%m-%d %H:%M %Z}" if ends else ""
    return f"{user} now holds {role}{end}."


def _refuse_if_held(user: User, role: Role) -> None:
    """Its end and reason may be a sign-in provider's, or another giver's."""
    same = RoleAssignment.objects.filter(user=user, role=role).unexpired()
    held = same.select_for_update().first()
    if held is None:
        return
    end = (
        f"until {held.expires_at:%Y-%m-%d %H:%M %Z}" if held.expires_at else "for good"
    )
    raise ToolError(
        f"{user} holds {role} already, {end}. Nothing was changed: change its end in "
        "the admin, or take it with revoke_role first."
    )


@mcp.tool(scopes=ADMINS, sensitive=True)
def revoke_role(user: Line, role: Line, reason: Line = "") -> str:
    """Take a role from a user; it counts from that user's next message on.

    You can take only what your own roles give you, and not from a superuser. The last
    role takes the user's tokens too.
    """
    actor = _actor()
    with transaction.atomic():
        holder, wanted = _user(user), _role(role)
        _check(objection_to_removing, actor, holder, wanted)
        held = RoleAssignment.objects.filter(user=holder, role=wanted).first()
        if held is None:
            raise ToolError(f"{user} does not hold {role}.")
        record("role.withdrawn", actor=actor, object=held, reason=reason)
        held.withdraw(actor=actor, reason=reason or "role withdrawn")
    return f"{user} no longer holds {role}."


@mcp.tool(scopes=ADMINS, sensitive=True)
def revoke_tokens(user: Line, reason: Line = "revoked over MCP") -> str:
    """Revoke every live token of a user, from the next message on.

    Not of somebody who may do more than you.
    """
    actor, owner = _actor(), _user(user)
    _check(objection_to_revoking, actor, owner)
    ended = owner.revoke_tokens(actor=actor, reason=reason)
    return f"{ended} tokens of {user} revoked."


@mcp.tool(scopes=ADMINS)
def recent_refusals(limit: int = 20) -> list[dict[str, Any]]:
    """The last refused messages: when, who, what, and why.

    Without the permission to view the audit in the admin: your own.
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
