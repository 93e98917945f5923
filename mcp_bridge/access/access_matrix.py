"""The access matrix: roles x primitives, computed from scopes, and its changes.

A role covers a primitive by any of its required scopes. A tick gives the role the
primitive's own scope (`tool:name`) only. Coverage by a shared scope, such as
`User.Write`, cannot be unticked here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from accounts.audit.record import record
from accounts.authorization.delegation import NotAllowed, objection_to_scope
from accounts.models import Role, Scope
from accounts.parsing.row_ids import row_id
from mcp_bridge.access import definitions
from mcp_bridge.models import DefinitionState, Primitive


class CellState(StrEnum):
    """What a role can do with a primitive, and whether a tick can change it."""

    OWN = "own"
    BOTH = "both"
    SHARED = "shared"
    NONE = "none"
    CLOSED = "closed"
    """Not covered, and its own scope would not help, because it is not required."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One role and one primitive."""

    role: int
    primitive: int
    state: CellState
    through: tuple[str, ...] = ()
    """Shared scopes that cover it."""

    @property
    def key(self) -> str:
        """As forms name it: `role-primitive`."""
        return f"{self.role}-{self.primitive}"

    @property
    def ticked(self) -> bool:
        """Whether the role has the own scope, and the primitive requires it."""
        return self.state in (CellState.OWN, CellState.BOTH)

    @property
    def tickable(self) -> bool:
        """Whether a tick would change what the role can do."""
        return self.state in (CellState.OWN, CellState.NONE, CellState.BOTH)


@dataclass(frozen=True, slots=True)
class MatrixChange:
    """One tick that is set or removed."""

    role: Role
    primitive: Primitive
    give: bool
    still_through: tuple[str, ...] = ()
    """Shared scopes that still cover it after the tick is removed."""

    @property
    def accepts(self) -> bool:
        """Whether the tick accepts a definition that is held."""
        return self.give and self.primitive.state == DefinitionState.HELD

    @property
    def unusable(self) -> str:
        """Why a tick lets nobody use it yet; empty if it does."""
        return self.primitive.obstacle if self.give and not self.accepts else ""

    @property
    def code(self) -> str:
        """As the review form submits it: `+role-primitive`."""
        return f"{'+' if self.give else '-'}{self.role.pk}-{self.primitive.pk}"


class StaleMatrix(Exception):
    """The matrix changed between display and save."""


class Matrix:
    """The current cells of some primitives and roles."""

    def __init__(self, primitives: Iterable[Primitive], roles: Iterable[Role]) -> None:
        self.primitives, self.roles = list(primitives), list(roles)
        self.required = scopes_by_row(Primitive.required_scopes.through, "primitive_id")
        self.granted = scopes_by_row(Role.scopes.through, "role_id")

    def cell(self, primitive: Primitive, role: Role) -> Cell:
        """What `role` can do with `primitive`."""
        required = self.required.get(primitive.pk, frozenset())
        covering = required & self.granted.get(role.pk, frozenset())
        own = primitive.own_scope
        shared = tuple(sorted(covering - {own}))
        if own in covering:
            state = CellState.BOTH if shared else CellState.OWN
        elif shared:
            state = CellState.SHARED
        else:
            state = CellState.NONE if own in required else CellState.CLOSED
        return Cell(role.pk, primitive.pk, state, shared)

    def row(self, primitive: Primitive) -> list[Cell]:
        """The primitive's cells, in the order of the roles."""
        return [self.cell(primitive, role) for role in self.roles]

    @property
    def version(self) -> str:
        """A digest of the rows behind these cells; it differs after any change."""
        basis = [
            [
                (p.pk, p.state, p.definition, sorted(self.required.get(p.pk, ())))
                for p in self.primitives
            ],
            [(r.pk, sorted(self.granted.get(r.pk, ()))) for r in self.roles],
        ]
        return hashlib.sha256(json.dumps(basis).encode()).hexdigest()[:32]

    def changes(
        self, ticked: set[str], shown: Iterable[Primitive]
    ) -> list[MatrixChange]:
        """Differences from the submitted ticks, for the primitives in `shown`."""
        return [
            MatrixChange(role, primitive, not cell.ticked, cell.through)
            for primitive in shown
            for role in self.roles
            for cell in [self.cell(primitive, role)]
            if cell.tickable and (cell.key in ticked) != cell.ticked
        ]

    def parse_changes(self, codes: Iterable[str]) -> list[MatrixChange]:
        """Changes from a review form; those that change nothing are left out."""
        roles = {role.pk: role for role in self.roles}
        primitives = {primitive.pk: primitive for primitive in self.primitives}
        changes = []
        for code in codes:
            role_key, _dash, primitive_key = code[1:].partition("-")
            role = roles.get(row_id(role_key))
            primitive = primitives.get(row_id(primitive_key))
            if role is None or primitive is None:
                continue
            cell, give = self.cell(primitive, role), code.startswith("+")
            if cell.tickable and cell.ticked != give:
                changes.append(MatrixChange(role, primitive, give, cell.through))
        return changes


def scopes_by_row(through: Any, owner: str) -> dict[int, frozenset[str]]:
    """Row -> names of its scopes, in one query."""
    scopes: dict[int, set[str]] = {}
    for key, name in through.objects.values_list(owner, "scope__name"):
        scopes.setdefault(key, set()).add(name)
    return {key: frozenset(names) for key, names in scopes.items()}


def save_matrix(
    matrix: Matrix, version: str, codes: Iterable[str], *, actor: Any, request: Any
) -> list[MatrixChange]:
    """Apply all changes in one transaction, with audit events, or none.

    Raises StaleMatrix, NotAllowed.
    """
    with transaction.atomic():
        locked = Role.objects.filter(pk__in=[r.pk for r in matrix.roles])
        list(locked.select_for_update().values_list("pk"))
        keys = [p.pk for p in matrix.primitives]
        rows = {p.pk: p for p in Primitive.objects.filter(pk__in=keys)}
        now = Matrix([rows[key] for key in keys if key in rows], matrix.roles)
        if now.version != version:
            raise StaleMatrix(
                _("Someone changed roles or tools after you opened this page.")
            )
        changes = now.parse_changes(codes)
        message = matrix_objection(actor, changes)
        if message:
            raise NotAllowed(message)
        held = {c.primitive.pk: c.primitive for c in changes if c.accepts}
        seen = {pk: row.definition for pk, row in held.items()}
        definitions.accept(
            held.values(),
            actor=actor,
            request=request,
            reviewed=seen,
            via="access matrix",
        )
        for change in changes:
            apply_change(change, actor, request)
    return changes


def matrix_objection(actor: Any, changes: Iterable[MatrixChange]) -> str:
    """Why the actor may not make all of these changes; empty if allowed."""
    for change in changes:
        message = objection_to_scope(actor, change.role, change.primitive.own_scope)
        if change.accepts and not message:
            message = definitions.objection_to_accepting(actor, change.primitive)
        if message:
            return f"{change.role}, {change.primitive.name}: {message}"
    return ""


def apply_change(change: MatrixChange, actor: Any, request: Any) -> None:
    """Apply one change and record it."""
    name = change.primitive.own_scope
    scope = Scope.objects.get(name=name)
    if change.give:
        change.role.scopes.add(scope)
    else:
        change.role.scopes.remove(scope)
    record(
        "role.scope_given" if change.give else "role.scope_taken",
        actor=actor,
        request=request,
        object=change.role,
        changes={name: [not change.give, change.give]},
        via="access matrix",
    )
