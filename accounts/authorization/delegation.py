"""Delegated administration: what somebody may give, take and end, by what they hold.

A superuser may do everything. Everybody else gives only what their own roles give
them, no longer and from no more networks than they have it, and never to themselves.
Every way in asks here: pages and actions of the admin, imports, MCP tools.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.authorization.mfa_enrollment import must_enroll_mfa
from accounts.http.ip_networks import covers
from accounts.models import (
    DocumentHost,
    IssuedToken,
    OAuthClient,
    Role,
    RoleAssignment,
    SigningKey,
    User,
)

NEVER = datetime.max.replace(tzinfo=UTC)
"""The end of what is held for good."""

ADMINISTRATIVE_SCOPES = frozenset({"Admin.Write"})
"""Scopes whose holders administer: only a superuser gives or takes them."""

REVOKE_PERMISSION, UNLOCK_PERMISSION = (
    "accounts.change_issuedtoken",
    "accounts.unlock_user",
)
"""Who has such a permission does that as a job, whatever their own roles give."""


class NotAllowed(Exception):
    """A rule refuses what somebody wants to do; the text is its objection."""


def scopes_until(user: User, networks: str = "") -> dict[str, datetime]:
    """Scope -> until when the user's roles give it (NEVER: for good).

    Only what they give in all of `networks` counts; empty: from anywhere.
    """
    found: dict[str, datetime] = {}
    rows = RoleAssignment.objects.filter(user=user).unexpired()
    columns = ("role__scopes__name", "role__networks", "expires_at")
    for scope, bound, end in rows.values_list(*columns):
        if scope is not None and covers(bound, networks):
            found[scope] = max(found.get(scope, end or NEVER), end or NEVER)
    return found


def objection_to_granting(
    actor: User, user: User, role: Role, until: datetime | None
) -> str:
    """Why `actor` may not give `role` to `user` until then; empty if they may."""
    told = objection_to_removing(actor, user, role)
    if told or actor.is_superuser:
        return told
    mine, now = scopes_until(actor, role.networks), timezone.now()
    ends = [mine.get(name, now) for name in role.scopes.values_list("name", flat=True)]
    if (until or NEVER) > min(ends, default=NEVER):
        latest = _("You hold what %(role)s gives until %(end)s: give it no longer.")
        return latest % {"role": role, "end": f"{min(ends):%Y-%m-%d %H:%M %Z}"}
    return ""


def objection_to_removing(actor: User, user: User, role: Role) -> str:
    """Why `actor` may not touch this role of `user`; empty if they may."""
    if actor.is_superuser:
        return ""
    if user.pk is not None and user.pk == actor.pk:
        return _("Your own roles are somebody else's to change.")
    if user.is_superuser:
        return _("The roles of a superuser are a superuser's to change.")
    return scope_objection(
        actor, role.scopes.values_list("name", flat=True), role.networks
    )


def scope_objection(actor: User, scopes: Iterable[str], networks: str = "") -> str:
    """Why these scopes are not the actor's to give or take; empty if they are."""
    wanted = set(scopes)
    if actor.is_superuser or not wanted:
        return ""
    if wanted & ADMINISTRATIVE_SCOPES:
        return _("What administers is a superuser's to give or take.")
    lacking = sorted(wanted - scopes_until(actor, networks).keys())
    if lacking:
        return _("You do not hold %s yourself.") % ", ".join(lacking)
    return ""


def objection_to_role(actor: User, role: Role) -> str:
    """Why `actor` may not change what `role` gives; empty if they may."""
    if actor.is_superuser:
        return ""
    held_by = RoleAssignment.objects.filter(role=role)
    if held_by.filter(user=actor).exists():
        return _("You hold %s yourself: it is for others to change.") % role
    if held_by.filter(user__is_superuser=True).exists():
        return _("A superuser holds %s: it is a superuser's to change.") % role
    given = role.scopes.values_list("name", flat=True)
    return scope_objection(actor, given, role.networks)


def objection_to_scope(actor: User, role: Role, scope: str) -> str:
    """Why `actor` may not give this scope to `role` or take it; empty if they may."""
    told = objection_to_role(actor, role)
    return told or scope_objection(actor, [scope] if scope else [], role.networks)


def objection_to_client(actor: User, client: OAuthClient) -> str:
    """Why `actor` may not change this client; empty if they may."""
    account = client.service_account
    if account is None or not outranks(actor, account):
        return ""
    told: str = _("It acts as %s, who may do more than you.") % account
    return told


def objection_to_tokens_of(actor: User, client: OAuthClient) -> str:
    """Why `actor` may not let its tokens count from elsewhere or longer, or go."""
    owners = client.tokens().live().values("user")
    if more_privileged_users(actor).filter(pk__in=owners).exists():
        return _("People who may do more than you have tokens of it.")
    return ""


def objection_to_host(actor: User, host: DocumentHost) -> str:
    """Why `actor` may not trust, refuse or forget this host of client documents."""
    for client in host.clients().exclude(service_account=None):
        told = objection_to_client(actor, client)
        if told:
            return f"{client}: {told}"
    return ""


def objection_to_retiring(actor: User, key: SigningKey) -> str:
    """Why `actor` may not refuse the tokens that a key signed; empty if they may."""
    signed = IssuedToken.objects.live().filter(kid=key.kid)
    if signed.filter(user__in=protected_users(actor)).exists():
        told = _("People who may do more than you have tokens signed with %s.")
        return told % key.kid
    return ""


def objection_to_importing(actor: User | str) -> str:
    """Why `actor` may not import users or a policy; the command line may.

    Asked of the database: a long upload begins with what the actor was then.
    """
    superusers = User.objects.filter(is_superuser=True, is_active=True)
    if isinstance(actor, str) or superusers.filter(pk=actor.pk).exists():
        return ""
    return _("Only a superuser imports users or a policy.")


def objection_to_revoking(actor: User, user: User) -> str:
    """Why `actor` may not end tokens and sign-ins of `user`; empty if they may."""
    if protected_users(actor).filter(pk=user.pk).exists():
        told = _("%s may do more than you: ask a superuser to end their access.")
        return told % user
    return ""


def protected_users(actor: User, job: str = REVOKE_PERMISSION) -> QuerySet[User]:
    """People whose sign-ins the actor may not end, or unlock, whatever their `job`.

    Somebody with the permission `job` serves everybody who does not administer: a
    helpdesk holds no scope, so comparing what is held would leave it nobody.
    """
    if actor.is_superuser or not has_admin_permission(actor, job):
        return more_privileged_users(actor)
    scopes = {"role__scopes__name__in": ADMINISTRATIVE_SCOPES}
    holders = RoleAssignment.objects.unexpired().filter(**scopes).values("user")
    administer = Q(is_superuser=True) | Q(is_staff=True) | Q(pk__in=holders)
    found: QuerySet[User] = User.objects.filter(administer).exclude(pk=actor.pk)
    return found


def more_privileged_users(actor: User) -> QuerySet[User]:
    """People who may do things `actor` may not, so that only others change them."""
    if actor.is_superuser:
        nobody: QuerySet[User] = User.objects.none()
        return nobody
    holders = RoleAssignment.objects.unexpired().filter(role__in=roles_exceeding(actor))
    higher = Q(is_superuser=True) | Q(is_staff=True) | Q(pk__in=holders.values("user"))
    found: QuerySet[User] = User.objects.filter(higher).exclude(pk=actor.pk)
    return found


def roles_exceeding(actor: User) -> list[Role]:
    """Roles that give something, or from somewhere, that the actor has not."""
    roles = list(Role.objects.prefetch_related("scopes"))
    mine = {
        bound: scopes_until(actor, bound).keys()
        for bound in {r.networks for r in roles}
    }
    return [
        role
        for role in roles
        if not {scope.name for scope in role.scopes.all()} <= mine[role.networks]
    ]


def outranks(actor: User, user: User) -> bool:
    """Whether `user` may do things `actor` may not."""
    return more_privileged_users(actor).filter(pk=user.pk).exists()


def has_admin_permission(actor: User, permission: str) -> bool:
    """Whether the admin would show `actor` what this Django permission opens."""
    in_the_admin = actor.is_active and actor.is_staff and not must_enroll_mfa(actor)
    return in_the_admin and actor.has_perm(permission)


def widens_access(changes: Mapping[str, tuple[Any, Any]]) -> bool:
    """Whether a change of a primitive lets anybody use what they could not before."""
    if changes.get("enabled") == (False, True):
        return True
    if changes.get("sensitive") == (True, False):
        return True
    before, after = changes.get("required_scopes", ((), ()))
    return not set(after) <= set(before)
