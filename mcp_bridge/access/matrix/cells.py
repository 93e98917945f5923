"""The access matrix: roles x primitives, computed from scopes, and its changes.

A role covers a primitive by any of its required scopes, and a cell is ticked if it
does. A new tick gives the role the primitive's own scope (`tool:name`). Without its
tick the role loses that scope, and the primitive stops requiring the shared scopes,
such as `User.Write`, through which this role covers it (`replacement.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from accounts.models import Role
from accounts.parsing.row_ids import row_id
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
        """Whether the role covers the primitive."""
        return self.state in (CellState.OWN, CellState.BOTH, CellState.SHARED)

    @property
    def tickable(self) -> bool:
        """Whether a tick would change what the role can do."""
        return self.state is not CellState.CLOSED


@dataclass(frozen=True, slots=True)
class MatrixChange:
    """One tick that is set or removed."""

    role: Role
    primitive: Primitive
    give: bool
    through: tuple[str, ...] = ()
    """Shared scopes that cover it: without the tick they are no longer required."""

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
            [role.pk for role in self.roles],
            # Other roles, too: they may keep a primitive by its own scope.
            [(pk, sorted(scopes)) for pk, scopes in sorted(self.granted.items())],
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
