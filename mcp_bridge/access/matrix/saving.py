"""Saves changes of the access matrix, all or none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from accounts.audit.record import record
from accounts.authorization.delegation import NotAllowed, objection_to_scope
from accounts.models import Role, Scope
from mcp_bridge.access import definitions
from mcp_bridge.access.matrix.cells import Matrix, MatrixChange
from mcp_bridge.access.matrix.replacement import MatrixOutcome, outcomes
from mcp_bridge.models import Primitive

CHANGE_PRIMITIVE = "mcp_bridge.change_primitive"
VIA = "access matrix"


class StaleMatrix(Exception):
    """The matrix changed between display and save."""


def save_matrix(
    matrix: Matrix, version: str, codes: Iterable[str], *, actor: Any, request: Any
) -> list[MatrixChange]:
    """Apply all changes in one transaction, with audit events, or none.

    Raises StaleMatrix, NotAllowed.
    """
    with transaction.atomic():
        # Other roles may get a primitive's own scope, so all are locked.
        list(Role.objects.order_by("pk").select_for_update().values_list("pk"))
        keys = [p.pk for p in matrix.primitives]
        rows = {p.pk: p for p in Primitive.objects.filter(pk__in=keys)}
        now = Matrix([rows[key] for key in keys if key in rows], matrix.roles)
        if now.version != version:
            raise StaleMatrix(
                _("Someone changed roles or tools after you opened this page.")
            )
        changes = now.parse_changes(codes)
        found = outcomes(now, changes)
        message = objection_to_changes(actor, changes)
        message = message or objection_to_replacing(actor, found)
        if message:
            raise NotAllowed(message)
        held = {c.primitive.pk: c.primitive for c in changes if c.accepts}
        seen = {pk: row.definition for pk, row in held.items()}
        definitions.accept(
            held.values(), actor=actor, request=request, reviewed=seen, via=VIA
        )
        for one in found:
            replace_scopes(one, actor, request)
        for change in changes:
            apply_change(now, change, actor, request)
    return changes


def objection_to_changes(actor: Any, changes: Iterable[MatrixChange]) -> str:
    """Why the actor may not make all of these changes; empty if allowed."""
    for change in changes:
        message = objection_to_scope(actor, change.role, change.primitive.own_scope)
        if change.accepts and not message:
            message = definitions.objection_to_accepting(actor, change.primitive)
        if message:
            return f"{change.role}, {change.primitive.name}: {message}"
    return ""


def objection_to_replacing(actor: Any, found: Iterable[MatrixOutcome]) -> str:
    """Why the actor may not replace shared scopes; empty if allowed.

    Roles that hold an own scope without effect gain by its becoming a required one.
    """
    for one in found:
        message = ""
        if one.dropped and not actor.has_perm(CHANGE_PRIMITIVE):
            message = _("You may not change which scopes it requires.")
        elif one.requires_own and not actor.is_superuser:
            message = _("Only superusers can add a required scope.")
        if message:
            return f"{one.primitive.name}: {message}"
        for role in one.keepers:
            message = objection_to_scope(actor, role, one.primitive.own_scope)
            if message:
                return f"{role}, {one.primitive.name}: {message}"
    return ""


def apply_change(
    matrix: Matrix, change: MatrixChange, actor: Any, request: Any
) -> None:
    """Give or take the own scope and record it; a shared one is replaced elsewhere."""
    name = change.primitive.own_scope
    if change.give:
        give_scope(change.role, name, actor, request)
    elif name in matrix.granted.get(change.role.pk, ()):
        change.role.scopes.remove(Scope.objects.get(name=name))
        record_scope(change.role, name, False, actor, request)


def replace_scopes(one: MatrixOutcome, actor: Any, request: Any) -> None:
    """Stop requiring the shared scopes; their other roles get the own scope."""
    if not one.dropped:
        return
    row, own = one.primitive, one.primitive.own_scope
    if one.requires_own:
        Scope.objects.get_or_create(name=own)
    row.required_scopes.set(Scope.objects.filter(name__in=one.required_after))
    record(
        "primitive.changed",
        actor=actor,
        request=request,
        object=row,
        changes={"required_scopes": [sorted(one.required), sorted(one.required_after)]},
        via=VIA,
    )
    for role in one.keepers:
        give_scope(role, own, actor, request)


def give_scope(role: Role, name: str, actor: Any, request: Any) -> None:
    """Give a role a scope and record it."""
    role.scopes.add(Scope.objects.get(name=name))
    record_scope(role, name, True, actor, request)


def record_scope(role: Role, name: str, given: bool, actor: Any, request: Any) -> None:
    record(
        "role.scope_given" if given else "role.scope_taken",
        actor=actor,
        request=request,
        object=role,
        changes={name: [not given, given]},
        via=VIA,
    )
