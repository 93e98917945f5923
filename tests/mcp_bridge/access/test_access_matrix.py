"""The access matrix: the effect of a cell, and its limits."""

from __future__ import annotations

import pytest

from accounts.models import AuditEvent, Role, Scope, User
from mcp_bridge.access.access_matrix import CellState, Matrix, StaleMatrix, save_matrix
from mcp_bridge.models import Offer, Primitive

pytestmark = pytest.mark.django_db


@pytest.fixture
def tools(db: None) -> dict[str, Primitive]:
    """One with a shared scope, one alone, one without its own scope."""
    offers = [
        Offer("tool", "shared", "", "", ("User.Read",), False, "1"),
        Offer("tool", "alone", "", "", (), False, "2"),
        Offer("tool", "closed", "", "", (), False, "3"),
    ]
    Primitive.objects.all().sync(offers)
    found = {row.name: row for row in Primitive.objects.filter(vanished_at=None)}
    found["closed"].required_scopes.set([Scope.objects.get(name="Admin.Write")])
    return found


def matrix() -> Matrix:
    return Matrix(Primitive.objects.all(), Role.objects.all())


def state(tool: Primitive, role: str) -> CellState:
    return matrix().cell(tool, Role.objects.get(name=role)).state


def test_the_states_of_a_cell(tools: dict[str, Primitive]) -> None:
    """A role covers a primitive by any of its required scopes."""
    user = Role.objects.get(name="User")
    assert state(tools["alone"], "User") == CellState.NONE
    assert state(tools["shared"], "User") == CellState.SHARED
    assert state(tools["closed"], "User") == CellState.CLOSED
    assert state(tools["closed"], "Admin") == CellState.SHARED
    user.scopes.add(*Scope.objects.filter(name__in=("tool:alone", "tool:shared")))
    assert state(tools["alone"], "User") == CellState.OWN
    cell = matrix().cell(tools["shared"], user)
    assert (cell.state, cell.through) == (CellState.BOTH, ("User.Read",))


def test_a_cell_adds_and_removes_only_its_own_scope(
    tools: dict[str, Primitive], carol: User
) -> None:
    """One transaction, one event per change, no duplicates."""
    role, tool = Role.objects.get(name="Guest"), tools["alone"]
    code = f"{role.pk}-{tool.pk}"
    for sign, before in (("+", False), ("-", True)):
        now = matrix()
        done = save_matrix(
            now, now.version, [f"{sign}{code}"] * 1, actor=carol, request=None
        )
        assert [(c.give, c.role.name) for c in done] == [(not before, "Guest")]
        event = AuditEvent.objects.all()[0]
        assert (event.actor, event.object) == ("carol", "Guest")
        assert event.changes == {"tool:alone": [before, not before]}
    assert not role.scopes.filter(name="tool:alone").exists()


@pytest.mark.parametrize("code", ["+1-0", "+x-y", "", "+", "1", "+99999-1", "-²-1"])
def test_invalid_codes_change_nothing(
    tools: dict[str, Primitive], carol: User, code: str
) -> None:
    """A hand-made form cannot bypass the rules."""
    now = matrix()
    assert save_matrix(now, now.version, [code], actor=carol, request=None) == []


def test_cells_that_cannot_change_are_unchanged(
    tools: dict[str, Primitive], carol: User
) -> None:
    """Shared and locked cells, and cells that already have the wanted state."""
    admin, user = Role.objects.get(name="Admin"), Role.objects.get(name="User")
    now = matrix()
    codes = [
        f"+{user.pk}-{tools['closed'].pk}",
        f"-{admin.pk}-{tools['shared'].pk}",
        f"-{user.pk}-{tools['alone'].pk}",
    ]
    assert save_matrix(now, now.version, codes, actor=carol, request=None) == []


def test_a_conflicting_change_refuses_the_whole_form(
    tools: dict[str, Primitive], carol: User
) -> None:
    """One transaction; the form has a digest of the shown state."""
    now, role = matrix(), Role.objects.get(name="Guest")
    role.scopes.add(Scope.objects.get(name="User.Read"))
    code = f"+{role.pk}-{tools['alone'].pk}"
    with pytest.raises(StaleMatrix):
        save_matrix(now, now.version, [code], actor=carol, request=None)
    assert not role.scopes.filter(name="tool:alone").exists()
