"""What Portico itself offers over MCP: who am I, and the admin's daily acts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mcp.server.mcpserver.exceptions import ToolError

from accounts.audit import record
from accounts.models import AuditEvent, Role, RoleAssignment, User
from mcp_bridge.current import current_principal
from mcp_bridge.server import mcp

EVERYBODY = ["Guest.Read", "User.Read", "User.Write", "Admin.Write"]
ADMINS = ["Admin.Write"]


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
async def me() -> dict[str, Any]:
    """The same as the tool whoami."""
    return about_me()


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


@mcp.tool(scopes=ADMINS)
def list_users(contains: str = "", limit: int = 50) -> list[dict[str, Any]]:
    """List users whose name contains a text, with their unexpired roles."""
    users = User.objects.filter(username__icontains=contains)
    return [
        {
            "user": user.username,
            "active": user.is_active,
            "roles": [a.role.name for a in held_by(user)],
        }
        for user in users[: max(1, min(limit, 500))]
    ]


def held_by(user: User) -> Any:
    """Unexpired assignments of a user with their roles."""
    return RoleAssignment.objects.filter(user=user).unexpired().select_related("role")


@mcp.tool(scopes=ADMINS)
def grant_role(user: str, role: str, reason: str = "") -> str:
    """Give a user a role; it counts from that user's next message on."""
    actor = User.objects.get(pk=current_principal().user_id)
    RoleAssignment.objects.grant(
        _user(user), _role(role), granted_by=actor, reason=reason
    )
    record("role.granted", actor=actor, object=f"{role} to {user}", reason=reason)
    return f"{user} now holds {role}."


@mcp.tool(scopes=ADMINS)
def revoke_role(user: str, role: str, reason: str = "") -> str:
    """Take a role from a user; it counts from that user's next message on."""
    actor = User.objects.get(pk=current_principal().user_id)
    held = RoleAssignment.objects.filter(user=_user(user), role=_role(role)).first()
    if held is None:
        raise ToolError(f"{user} does not hold {role}.")
    held.withdraw(actor=actor)
    record("role.withdrawn", actor=actor, object=f"{role} from {user}", reason=reason)
    return f"{user} no longer holds {role}."


@mcp.tool(scopes=ADMINS)
def revoke_tokens(user: str, reason: str = "revoked over MCP") -> str:
    """Revoke every live token of a user, from the next message on."""
    actor = User.objects.get(pk=current_principal().user_id)
    ended = _user(user).end_access(actor=actor, reason=reason)
    return f"{ended} tokens of {user} revoked."


@mcp.tool(scopes=ADMINS)
def recent_refusals(limit: int = 20) -> list[dict[str, Any]]:
    """The last refused messages: when, who, what, and why."""
    denied = AuditEvent.objects.filter(decision=AuditEvent.Verdict.DENIED)
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
