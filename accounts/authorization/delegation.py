"""Delegated administration: which roles and tokens a user may grant or revoke.

A superuser may do everything. Other users grant only scopes that their own roles grant
them. The grant lasts no longer and covers no more networks than theirs.
No user changes their own roles. Admin pages, imports and MCP tools all check here.
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
    DocumentCopy,
    DocumentHost,
    IssuedToken,
    OAuthClient,
    Role,
    RoleAssignment,
    SigningKey,
    User,
)

NEVER = datetime.max.replace(tzinfo=UTC)
"""The end of an assignment without an expiry date."""

ADMINISTRATIVE_SCOPES = frozenset({"Admin.Write"})
"""Only a superuser grants or removes these scopes."""

REVOKE_PERMISSION, UNLOCK_PERMISSION = (
    "accounts.change_issuedtoken",
    "accounts.unlock_user",
)
"""Django permissions that allow the action whatever scopes the actor's roles grant."""


NOT_YOURS = "not_yours"
"""Code of form errors that come from these rules: the value is valid for others."""


class NotAllowed(Exception):
    """A delegation rule refuses an action; the message states why."""


def scopes_until(user: User, networks: str = "") -> dict[str, datetime]:
    """Scope -> the moment when the user's last role that grants it expires.

    Counts roles that are valid in all of `networks`; empty means any address.
    """
    ends: dict[str, datetime] = {}
    rows = RoleAssignment.objects.filter(user=user).unexpired()
    columns = ("role__scopes__name", "role__networks", "expires_at")
    for scope, bound, end in rows.values_list(*columns):
        if scope is not None and covers(bound, networks):
            ends[scope] = max(ends.get(scope, end or NEVER), end or NEVER)
    return ends


def objection_to_granting(
    actor: User, user: User, role: Role, until: datetime | None
) -> str:
    """Why `actor` may not grant `role` to `user` until then; empty if allowed."""
    text = objection_to_removing(actor, user, role)
    if text or actor.is_superuser:
        return text
    mine, now = scopes_until(actor, role.networks), timezone.now()
    ends = [mine.get(name, now) for name in role.scopes.values_list("name", flat=True)]
    if (until or NEVER) > min(ends, default=NEVER):
        end = timezone.localtime(min(ends))
        latest = _(
            "Your own access to the scopes of %(role)s ends on "
            "%(end)s. Choose an earlier end date."
        )
        return latest % {"role": role, "end": f"{end:%Y-%m-%d %H:%M %Z}"}
    return ""


def objection_to_removing(actor: User, user: User, role: Role) -> str:
    """Why `actor` may not remove `role` from `user`; empty if allowed."""
    if actor.is_superuser:
        return ""
    if user.pk == actor.pk:
        return _("You cannot change your own roles. Ask another administrator.")
    if user.is_superuser:
        return _("Only superusers can change the roles of a superuser.")
    return scope_objection(
        actor, role.scopes.values_list("name", flat=True), role.networks
    )


def scope_objection(actor: User, scopes: Iterable[str], networks: str = "") -> str:
    """Why `actor` may not grant or remove these scopes; empty if allowed."""
    requested = set(scopes)
    if actor.is_superuser or not requested:
        return ""
    if requested & ADMINISTRATIVE_SCOPES:
        return _("Only superusers can grant or remove administrative scopes.")
    missing = sorted(requested - scopes_until(actor, networks).keys())
    if missing:
        return _(
            "You do not have %s yourself. Ask an administrator who has it."
        ) % ", ".join(missing)
    return ""


def objection_to_role(actor: User, role: Role) -> str:
    """Why `actor` may not change the scopes of `role`; empty if allowed."""
    if actor.is_superuser:
        return ""
    assignments = RoleAssignment.objects.filter(role=role)
    if assignments.filter(user=actor).exists():
        return _("You have %s yourself. Ask another administrator to change it.") % role
    if assignments.filter(user__is_superuser=True).exists():
        return _("A superuser has %s. Only superusers can change it.") % role
    scopes = role.scopes.values_list("name", flat=True)
    return scope_objection(actor, scopes, role.networks)


def objection_to_scope(actor: User, role: Role, scope: str) -> str:
    """Why `actor` may not add `scope` to `role` or remove it; empty if allowed."""
    text = objection_to_role(actor, role)
    return text or scope_objection(actor, [scope] if scope else [], role.networks)


def objection_to_client(actor: User, client: OAuthClient) -> str:
    """Why `actor` may not change this client; empty if allowed."""
    account = client.service_account
    if account is None or not outranks(actor, account):
        return ""
    text: str = (
        _("The client acts as %s, who has more permissions than you. Ask a superuser.")
        % account
    )
    return text


def objection_to_tokens_of(actor: User, client: OAuthClient) -> str:
    """Why `actor` may not widen the networks or idle limit of a client or delete it.

    Empty if allowed.
    """
    owners = client.tokens().live().values("user")
    if more_privileged_users(actor).filter(pk__in=owners).exists():
        return _(
            "Users with more permissions than you have tokens of this "
            "client. Ask a superuser."
        )
    return ""


def objection_to_host(actor: User, host: DocumentHost) -> str:
    """Why `actor` may not change or delete this document host; empty if allowed."""
    for client in host.clients().exclude(service_account=None):
        text = objection_to_client(actor, client)
        if text:
            return f"{client}: {text}"
    return ""


def objection_to_copy(actor: User, copy: DocumentCopy) -> str:
    """Why `actor` may not change or delete this document copy; empty if allowed."""
    for client in copy.clients():
        text = objection_to_client(actor, client)
        text = text or objection_to_tokens_of(actor, client)
        if text:
            return f"{client}: {text}"
    return ""


def objection_to_retiring(actor: User, key: SigningKey) -> str:
    """Why `actor` may not retire this signing key; empty if allowed."""
    signed = IssuedToken.objects.live().filter(kid=key.kid)
    if signed.filter(user__in=protected_users(actor)).exists():
        text = _(
            "Users with more permissions than you have tokens signed "
            "with %s. Ask a superuser."
        )
        return text % key.kid
    return ""


def objection_to_importing(actor: User | str) -> str:
    """Why `actor` may not import users or a policy; empty if allowed.

    A text names the command line, which may. Reads the database again, because the
    actor may have lost the right during a long upload.
    """
    superusers = User.objects.filter(is_superuser=True, is_active=True)
    if isinstance(actor, str) or superusers.filter(pk=actor.pk).exists():
        return ""
    return _("Only superusers can import users or a policy.")


def objection_to_revoking(actor: User, user: User) -> str:
    """Why `actor` may not revoke tokens and sessions of `user`; empty if allowed."""
    if protected_users(actor).filter(pk=user.pk).exists():
        text = _(
            "%s has more permissions than you. Ask a superuser to revoke their access."
        )
        return text % user
    return ""


def protected_users(actor: User, job: str = REVOKE_PERMISSION) -> QuerySet[User]:
    """Users whose sessions or lock the actor may not touch.

    An actor with the permission `job` may serve all users who do not administer.
    Comparing scopes instead would leave nothing to a helpdesk, which has no scopes.
    """
    if actor.is_superuser or not has_admin_permission(actor, job):
        return more_privileged_users(actor)
    scopes = {"role__scopes__name__in": ADMINISTRATIVE_SCOPES}
    holders = RoleAssignment.objects.unexpired().filter(**scopes).values("user")
    administer = Q(is_superuser=True) | Q(is_staff=True) | Q(pk__in=holders)
    users: QuerySet[User] = User.objects.filter(administer).exclude(pk=actor.pk)
    return users


def more_privileged_users(actor: User) -> QuerySet[User]:
    """Users with rights that `actor` lacks; `actor` may not change these accounts."""
    if actor.is_superuser:
        none: QuerySet[User] = User.objects.none()
        return none
    holders = RoleAssignment.objects.unexpired().filter(role__in=roles_exceeding(actor))
    higher = Q(is_superuser=True) | Q(is_staff=True) | Q(pk__in=holders.values("user"))
    users: QuerySet[User] = User.objects.filter(higher).exclude(pk=actor.pk)
    return users


def roles_exceeding(actor: User) -> list[Role]:
    """Roles that grant a scope, or a network for it, that `actor` lacks."""
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
    """Whether `user` has rights that `actor` lacks."""
    return more_privileged_users(actor).filter(pk=user.pk).exists()


def has_admin_permission(actor: User, permission: str) -> bool:
    """Whether `actor` may enter the admin and has this Django permission there."""
    return may_enter_admin(actor) and actor.has_perm(permission)


def may_enter_admin(actor: User) -> bool:
    """Whether `actor` is staff and has the second factor that staff may need."""
    return actor.is_active and actor.is_staff and not must_enroll_mfa(actor)


def widens_access(changes: Mapping[str, tuple[Any, Any]]) -> bool:
    """Whether a change of a primitive lets more users call it."""
    if changes.get("enabled") == (False, True):
        return True
    if changes.get("sensitive") == (True, False):
        return True
    before, after = changes.get("required_scopes", ((), ()))
    return not set(after) <= set(before)
