"""The access matrix: roles x primitives as the scopes make them, and its changes.

A role covers a primitive by any of its required scopes. A tick gives the role the
primitive's own scope (`tool:name`) and nothing else; what a shared scope such as
`User.Write` covers cannot be unticked, and says so.
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
from mcp_bridge.models import Primitive


class CellState(StrEnum):
    """What a role can do with a primitive, and whether a tick can change it."""

    OWN = "own"
    BOTH = "both"
    SHARED = "shared"
    NONE = "none"
    CLOSED = "closed"
    """Not covered, and its own scope would not help: it does not ask for it."""


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
        """As forms write it: `role-primitive`."""
        return f"{self.role}-{self.primitive}"

    @property
    def ticked(self) -> bool:
        """Whether the role has the primitive's own scope, and it counts."""
        return self.state in (CellState.OWN, CellState.BOTH)

    @property
    def tickable(self) -> bool:
        """Whether a tick would change what the role can do."""
        return self.state in (CellState.OWN, CellState.NONE, CellState.BOTH)


@dataclass(frozen=True, slots=True)
class MatrixChange:
    """One tick set or taken."""

    role: Role
    primitive: Primitive
    give: bool
    still_through: tuple[str, ...] = ()
    """Shared scopes that go on covering it when the tick is taken."""

    @property
    def code(self) -> str:
        """As the review page hands it on: `+role-primitive`."""
        return f"{'+' if self.give else '-'}{self.role.pk}-{self.primitive.pk}"


class StaleMatrix(Exception):
    """Somebody changed what was shown before it was saved."""


class Matrix:
    """The cells of some primitives and roles, as they are now."""

    def __init__(self, primitives: Iterable[Primitive], roles: Iterable[Role]) -> None:
        self.primitives, self.roles = list(primitives), list(roles)
        self.required = pairs(Primitive.required_scopes.through, "primitive_id")
        self.given = pairs(Role.scopes.through, "role_id")

    def cell(self, primitive: Primitive, role: Role) -> Cell:
        """What `role` can do with `primitive`."""
        required = self.required.get(primitive.pk, frozenset())
        held = required & self.given.get(role.pk, frozenset())
        own = primitive.own_scope
        shared = tuple(sorted(held - {own}))
        if own in held:
            state = CellState.BOTH if shared else CellState.OWN
        elif shared:
            state = CellState.SHARED
        else:
            state = CellState.NONE if own in required else CellState.CLOSED
        return Cell(role.pk, primitive.pk, state, shared)

    def row(self, primitive: Primitive) -> list[Cell]:
        """One primitive's cells, in the order of the roles."""
        return [self.cell(primitive, role) for role in self.roles]

    @property
    def version(self) -> str:
        """A digest of what these cells rest on: it differs once somebody changed it."""
        rests_on = [
            [(p.pk, sorted(self.required.get(p.pk, ()))) for p in self.primitives],
            [(r.pk, sorted(self.given.get(r.pk, ()))) for r in self.roles],
        ]
        return hashlib.sha256(json.dumps(rests_on).encode()).hexdigest()[:32]

    def changes(
        self, ticked: set[str], shown: Iterable[Primitive]
    ) -> list[MatrixChange]:
        """What differs from the ticks somebody left on the primitives `shown`."""
        return [
            MatrixChange(role, primitive, not cell.ticked, cell.through)
            for primitive in shown
            for role in self.roles
            for cell in [self.cell(primitive, role)]
            if cell.tickable and (cell.key in ticked) != cell.ticked
        ]

    def parse_changes(self, codes: Iterable[str]) -> list[MatrixChange]:
        """The changes a review page handed on; what is none any more is left out."""
        roles = {role.pk: role for role in self.roles}
        primitives = {primitive.pk: primitive for primitive in self.primitives}
        found = []
        for code in codes:
            role_key, _dash, primitive_key = code[1:].partition("-")
            role = roles.get(row_id(role_key))
            primitive = primitives.get(row_id(primitive_key))
            if role is None or primitive is None:
                continue
            cell, give = self.cell(primitive, role), code.startswith("+")
            if cell.tickable and cell.ticked != give:
                found.append(MatrixChange(role, primitive, give, cell.through))
        return found


def pairs(through: Any, owner: str) -> dict[int, frozenset[str]]:
    """Row -> names of its scopes, in one query."""
    found: dict[int, set[str]] = {}
    for key, name in through.objects.values_list(owner, "scope__name"):
        found.setdefault(key, set()).add(name)
    return {key: frozenset(names) for key, names in found.items()}


def save_matrix(
    matrix: Matrix, version: str, codes: Iterable[str], *, actor: Any, request: Any
) -> list[MatrixChange]:
    """Give and take own scopes, all or none, on record. Raises Stale, NotAllowed."""
    with transaction.atomic():
        locked = Role.objects.filter(pk__in=[r.pk for r in matrix.roles])
        list(locked.select_for_update().values_list("pk"))
        now = Matrix(matrix.primitives, matrix.roles)
        if now.version != version:
            raise StaleMatrix(
                _("Somebody changed roles or tools since you opened this page.")
            )
        changes = now.parse_changes(codes)
        told = matrix_objection(actor, changes)
        if told:
            raise NotAllowed(told)
        for change in changes:
            apply_change(change, actor, request)
    return changes


def matrix_objection(actor: Any, changes: Iterable[MatrixChange]) -> str:
    """Why the actor may not make all of these changes; empty if they may."""
    for change in changes:
        told = objection_to_scope(actor, change.role, change.primitive.own_scope)
        if told:
            return f"{change.role}, {change.primitive.name}: {told}"
    return ""


def apply_change(change: MatrixChange, actor: Any, request: Any) -> None:
    """One tick, on record."""
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
        object=str(change.role),
        changes={name: [not change.give, change.give]},
        via="access matrix",
    )
