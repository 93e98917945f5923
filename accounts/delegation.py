"""Delegated administration: what staff may give and touch, by what they hold.

A superuser may do everything. Everybody else gives only what their own roles give
them, no longer than they have it themselves, and never to themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from django.utils.translation import gettext as _

from accounts.models import Role, RoleAssignment, Scope, User

NEVER = datetime.max.replace(tzinfo=UTC)
"""The end of what is held for good."""

SUPERUSERS_TO_GIVE = frozenset({"Admin.Write"})
"""Scopes whose holders administer: only a superuser gives or takes them."""


def held(user: User) -> dict[str, datetime]:
    """Scope -> until when the user's roles give it (NEVER: for good)."""
    found: dict[str, datetime] = {}
    rows = RoleAssignment.objects.filter(user=user).unexpired()
    for scope, end in rows.values_list("role__scopes__name", "expires_at"):
        if scope is not None:
            found[scope] = max(found.get(scope, end or NEVER), end or NEVER)
    return found


def objection(actor: User, user: User, role: Role, until: datetime | None) -> str:
    """Why `actor` may not give `role` to `user` until then; empty if they may."""
    told = objection_to_taking(actor, user, role)
    if told or actor.is_superuser:
        return told
    mine = held(actor)
    ends = [mine[name] for name in role.scopes.values_list("name", flat=True)]
    if (until or NEVER) > min(ends, default=NEVER):
        latest = _("You hold what %(role)s gives until %(end)s: give it no longer.")
        return latest % {"role": role, "end": f"{min(ends):%Y-%m-%d %H:%M %Z}"}
    return ""


def objection_to_taking(actor: User, user: User, role: Role) -> str:
    """Why `actor` may not touch this role of `user`; empty if they may."""
    if actor.is_superuser:
        return ""
    if user.pk is not None and user.pk == actor.pk:
        return _("Your own roles are somebody else's to change.")
    if user.is_superuser:
        return _("The roles of a superuser are a superuser's to change.")
    return beyond(actor, role.scopes.values_list("name", flat=True))


def beyond(actor: User, scopes: Iterable[str]) -> str:
    """Why these scopes are not the actor's to give or take; empty if they are."""
    wanted = set(scopes)
    if actor.is_superuser or not wanted:
        return ""
    if wanted & SUPERUSERS_TO_GIVE:
        return _("What administers is a superuser's to give or take.")
    lacking = sorted(wanted - held(actor).keys())
    if lacking:
        return _("You do not hold %s yourself.") % ", ".join(lacking)
    return ""


def objection_to_scope(actor: User, role: Role, scope: str) -> str:
    """Why `actor` may not give this scope to `role` or take it; empty if they may."""
    if actor.is_superuser:
        return ""
    if holds_role(actor, role):
        return _("You hold %s yourself: it is for others to change.") % role
    given = role.scopes.values_list("name", flat=True)
    return beyond(actor, [*given, *([scope] if scope else [])])


def above(actor: User, user: User) -> bool:
    """Whether `user` may do things `actor` may not, so that only others change it."""
    if actor.is_superuser or actor.pk == user.pk:
        return False
    if user.is_superuser or user.is_staff:
        return True
    return not held(user).keys() <= held(actor).keys()


def holds_role(actor: User, role: Role) -> bool:
    """Whether the actor's own rights would change with this role."""
    return RoleAssignment.objects.filter(user=actor, role=role).exists()


def holds_scope(actor: User, scope: Scope) -> bool:
    """Whether the actor's own rights would change with this scope."""
    return scope.name in held(actor)


def widens(changes: Mapping[str, tuple[Any, Any]]) -> bool:
    """Whether a change of a primitive lets anybody use what they could not before."""
    if changes.get("enabled") == (False, True):
        return True
    if changes.get("sensitive") == (True, False):
        return True
    before, after = changes.get("required_scopes", ((), ()))
    return not set(after) <= set(before)
