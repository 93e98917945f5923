"""An administrator's decisions about definitions: accept, reject, give to roles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from accounts.audit.record import record
from accounts.authorization.delegation import NotAllowed
from accounts.models import Role, Scope, User
from mcp_bridge.models import DefinitionState, Primitive, PrimitiveQuerySet

WAITING = (DefinitionState.HELD, DefinitionState.CHANGED)
"""States in which an administrator has to decide."""
DECIDABLE = (*WAITING, DefinitionState.REJECTED)
"""States in which a definition can be accepted."""


class StaleDefinition(Exception):
    """The source offers another definition than the one that was reviewed."""


def waiting() -> PrimitiveQuerySet:
    """Primitives whose definition waits for a decision."""
    return Primitive.objects.filter(state__in=WAITING)


def objection_to_accepting(actor: Any, primitive: Primitive) -> str:
    """Why `actor` may not accept this definition; empty if allowed.

    A text names the command line, which may. Accepting lets people call what they
    could not call, except for code that serves the new definition already.
    """
    if not isinstance(actor, User) or actor.is_superuser:
        return ""
    harmless = (
        primitive.upstream_id is None
        and primitive.state == DefinitionState.CHANGED
        and not primitive.calls_refused
    )
    return "" if harmless else _("Only superusers can accept this definition.")


def acceptance_problem(primitive: Primitive) -> str:
    """Why the definition cannot be accepted whoever asks; empty if it can."""
    if primitive.state == DefinitionState.GONE:
        return _("Its source no longer offers it.")
    if primitive.state not in DECIDABLE:
        return primitive.problem or _("Nothing waits for a decision.")
    rejected = primitive.state == DefinitionState.REJECTED
    return "" if rejected else primitive.problem


def accept(
    primitives: Iterable[Primitive],
    *,
    actor: Any,
    request: Any = None,
    reviewed: dict[int, str] | None = None,
    via: str = "",
) -> list[Primitive]:
    """Accept all of these definitions in one transaction, or none.

    `reviewed` is row -> hash of the definition that the person saw. Raises NotAllowed,
    StaleDefinition, and ValueError for one that cannot be accepted.
    """
    with transaction.atomic():
        keys = [primitive.pk for primitive in primitives]
        rows = list(Primitive.objects.select_for_update().filter(pk__in=keys))
        for row in rows:
            check(row, actor, reviewed)
            before = row.accepted_hash
            row.problem = ""
            row.save(update_fields=["problem"])
            row.accept_definition()
            changes = {"definition": [before[:16], row.definition[:16]]}
            record(
                "primitive.accepted",
                actor=actor,
                request=request,
                object=row,
                changes=changes,
                via=via,
            )
    return rows


def check(row: Primitive, actor: Any, reviewed: dict[int, str] | None) -> None:
    """Raises NotAllowed, StaleDefinition, ValueError."""
    refuse_stale(row, reviewed)
    if message := objection_to_accepting(actor, row):
        raise NotAllowed(f"{row.name}: {message}")
    if message := acceptance_problem(row):
        raise ValueError(f"{row.name}: {message}")


def refuse_stale(row: Primitive, reviewed: dict[int, str] | None) -> None:
    """Raises StaleDefinition."""
    if reviewed is not None and reviewed.get(row.pk) != row.definition:
        raise StaleDefinition(row.name)


def reject(
    primitives: Iterable[Primitive],
    reason: str,
    *,
    actor: Any,
    request: Any = None,
    reviewed: dict[int, str] | None = None,
) -> list[Primitive]:
    """Reject what is offered; nobody can use these until a definition is accepted.

    Those that cannot be served are left out: they already have a reason. Raises
    StaleDefinition for one that is not as it was `reviewed`.
    """
    with transaction.atomic():
        keys = [primitive.pk for primitive in primitives]
        rows = waiting().select_for_update().filter(pk__in=keys, problem="")
        found = list(rows)
        for row in found:
            refuse_stale(row, reviewed)
            state = row.state
            row.reject_definition(reason)
            record(
                "primitive.rejected",
                actor=actor,
                request=request,
                object=row,
                changes={
                    "state": [state, row.state],
                    "definition": [None, row.definition[:16]],
                    "reason": [None, row.problem],
                },
            )
    return found


def give(
    primitives: Iterable[Primitive], roles: Iterable[Role], *, actor: Any, via: str
) -> int:
    """Give the primitives' own scopes to roles; counts the new ones."""
    count = 0
    names = [primitive.own_scope for primitive in primitives]
    with transaction.atomic():
        for role in roles:
            had = set(role.scopes.values_list("name", flat=True))
            for name in names:
                if name in had:
                    continue
                role.scopes.add(Scope.objects.get_or_create(name=name)[0])
                count += 1
                record(
                    "role.scope_given",
                    actor=actor,
                    object=role,
                    changes={name: [False, True]},
                    via=via,
                )
    return count
