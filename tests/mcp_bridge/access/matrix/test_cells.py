"""The access matrix: the effect of a cell, and its limits."""

from __future__ import annotations

import pytest
from django.test import RequestFactory

from accounts.authorization.delegation import NotAllowed
from accounts.models import AuditEvent, Role, RoleAssignment, Scope, User
from mcp_bridge.access.matrix.cells import Cell, CellState, Matrix, MatrixChange
from mcp_bridge.access.matrix.saving import StaleMatrix, save_matrix
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
    """Locked cells, and cells that already have the wanted state."""
    admin, user = Role.objects.get(name="Admin"), Role.objects.get(name="User")
    now = matrix()
    codes = [
        f"+{user.pk}-{tools['closed'].pk}",
        f"+{admin.pk}-{tools['shared'].pk}",
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


EFFECTS = {
    CellState.OWN: (True, True),
    CellState.BOTH: (True, True),
    CellState.SHARED: (True, True),
    CellState.NONE: (False, True),
    CellState.CLOSED: (False, False),
}
"""State -> whether the cell is ticked, and whether a tick changes anything."""


@pytest.mark.parametrize("state", CellState)
def test_a_state_says_whether_a_cell_is_ticked_and_can_be(state: CellState) -> None:
    cell = Cell(3, 7, state)
    assert (cell.ticked, cell.tickable) == EFFECTS[state]
    assert cell.key == "3-7"


def cells(tools: dict[str, Primitive], role: Role) -> dict[CellState, Primitive]:
    """A primitive in every state for `role`, by state."""
    offers = [
        Offer("tool", name, "", "", ("User.Read",), False, name)
        for name in ("both", "none", "own", "shared")
    ]
    closed = Offer("tool", "closed", "", "", (), False, "closed")
    Primitive.objects.all().delete()
    Primitive.objects.sync([*offers, closed])
    rows = {row.name: row for row in Primitive.objects.all()}
    shared = Scope.objects.get(name="User.Read")
    rows["none"].required_scopes.remove(shared)
    rows["own"].required_scopes.remove(shared)
    rows["closed"].required_scopes.clear()
    own = Scope.objects.filter(name__in=("tool:own", "tool:both", "tool:closed"))
    role.scopes.set([shared, *own])
    return {CellState(name): row for name, row in rows.items()}


def test_the_differences_from_the_submitted_ticks(tools: dict[str, Primitive]) -> None:
    """Unticked ones are taken, ticked ones given, the others are left."""
    role, other = Role.objects.get(name="User"), Role.objects.get(name="Guest")
    rows = cells(tools, role)
    now = Matrix(Primitive.objects.all(), [role])
    for state, row in rows.items():
        assert now.cell(row, role).state == state
    keys = {state: f"{role.pk}-{row.pk}" for state, row in rows.items()}
    kept = {keys[CellState.OWN], keys[CellState.BOTH], keys[CellState.SHARED]}
    assert now.changes(kept, rows.values()) == []
    everything = now.changes(set(keys.values()), rows.values())
    assert everything == [MatrixChange(role, rows[CellState.NONE], True)]
    taken = now.changes({f"{other.pk}-{rows[CellState.OWN].pk}"}, rows.values())
    assert {(c.primitive.name, c.give, c.through) for c in taken} == {
        ("own", False, ()),
        ("both", False, ("User.Read",)),
        ("shared", False, ("User.Read",)),
    }
    assert now.changes(set(), [rows[CellState.NONE]]) == []


@pytest.mark.parametrize("state", CellState)
@pytest.mark.parametrize("sign", "+-")
def test_a_code_changes_only_what_it_can(
    tools: dict[str, Primitive], state: CellState, sign: str
) -> None:
    role = Role.objects.get(name="User")
    row = cells(tools, role)[state]
    now = Matrix(Primitive.objects.all(), [role])
    ticked, tickable = EFFECTS[state]
    found = now.parse_changes([f"{sign}{role.pk}-{row.pk}"])
    if tickable and ticked is not (sign == "+"):
        through = now.cell(row, role).through
        assert found == [MatrixChange(role, row, sign == "+", through)]
        assert found[0].code == f"{sign}{role.pk}-{row.pk}"
    else:
        assert found == []


def test_a_code_outside_of_the_matrix_changes_nothing(
    tools: dict[str, Primitive],
) -> None:
    """A form names only the roles and primitives that its page shows."""
    user, guest = Role.objects.get(name="User"), Role.objects.get(name="Guest")
    alone, shared = tools["alone"], tools["shared"]
    now = Matrix([alone], [guest])
    codes = [f"+{user.pk}-{alone.pk}", f"+{guest.pk}-{shared.pk}", "+-", "+1"]
    assert now.parse_changes(codes) == []
    assert len(now.parse_changes([*codes, f"+{guest.pk}-{alone.pk}"])) == 1


def test_a_row_has_the_cells_in_the_order_of_the_roles(
    tools: dict[str, Primitive],
) -> None:
    roles = list(Role.objects.filter(name__in=("Guest", "User")).order_by("-name"))
    row = Matrix([tools["shared"]], roles).row(tools["shared"])
    assert [(cell.role, cell.state) for cell in row] == [
        (roles[0].pk, CellState.SHARED),
        (roles[1].pk, CellState.NONE),
    ]


@pytest.mark.parametrize("side", ["role", "primitive"])
def test_the_version_changes_with_every_row_behind_the_matrix(
    tools: dict[str, Primitive], side: str
) -> None:
    role, tool = Role.objects.get(name="Guest"), tools["alone"]
    before = matrix().version
    assert matrix().version == before and len(before) == 32
    scopes = role.scopes if side == "role" else tool.required_scopes
    scopes.add(Scope.objects.get(name="User.Read"))
    assert matrix().version != before
    scopes.remove(Scope.objects.get(name="User.Read"))
    assert matrix().version == before
    assert Matrix([tool], Role.objects.all()).version != before
    assert Matrix(Primitive.objects.all(), [role]).version != before
    unseen = Role.objects.create(name="Unseen")
    page = Matrix([tool], [role]).version
    unseen.scopes.add(Scope.objects.get(name="User.Read"))
    assert Matrix([tool], [role]).version != page, "it may keep a tool by its own scope"


@pytest.mark.parametrize("changed", [{"definition": "x"}, {"state": "held"}])
def test_a_definition_that_changed_makes_the_page_stale(
    tools: dict[str, Primitive], carol: User, changed: dict[str, str]
) -> None:
    """A tick accepts what is held, so it must be what was shown."""
    role, tool = Role.objects.get(name="Guest"), tools["alone"]
    shown = matrix().version
    Primitive.objects.filter(pk=tool.pk).update(**changed)
    code = f"+{role.pk}-{tool.pk}"
    with pytest.raises(StaleMatrix):
        save_matrix(matrix(), shown, [code], actor=carol, request=None)
    assert not role.scopes.filter(name="tool:alone").exists()


def test_only_superusers_accept_by_a_tick(
    tools: dict[str, Primitive], manager: User
) -> None:
    guest, tool = Role.objects.get(name="Guest"), tools["alone"]
    guest.scopes.set([])
    Primitive.objects.filter(pk=tool.pk).update(state="held")
    now, code = matrix(), f"+{guest.pk}-{tool.pk}"
    with pytest.raises(NotAllowed, match="^Guest, alone: Only superusers can accept"):
        save_matrix(now, now.version, [code], actor=manager, request=None)
    assert not guest.scopes.exists()
    tool.refresh_from_db()
    assert tool.state == "held"


def test_a_page_is_saved_as_the_rows_are_now(
    tools: dict[str, Primitive], carol: User
) -> None:
    """Not as they were when the matrix was read, before its lock."""
    role, tool = Role.objects.get(name="Guest"), tools["alone"]
    stale = matrix()
    role.scopes.add(Scope.objects.get(name="tool:alone"))
    code = f"+{role.pk}-{tool.pk}"
    version = matrix().version
    assert save_matrix(stale, version, [code], actor=carol, request=None) == []


@pytest.fixture
def manager(db: None) -> User:
    """Staff who may change roles, and whose own roles grant `tool:alone`."""
    manager: User = User.objects.create(username="max", is_staff=True)
    role = Role.objects.create(name="Makers")
    role.scopes.set(Scope.objects.filter(name__in=["tool:alone", "Guest.Read"]))
    RoleAssignment.objects.grant(manager, role)
    return manager


def test_one_change_that_is_not_allowed_refuses_all(
    tools: dict[str, Primitive], manager: User
) -> None:
    """Nobody gives a role a scope that their own roles do not grant."""
    Role.objects.get(name="Makers").scopes.add(Scope.objects.get(name="tool:alone"))
    guest = Role.objects.get(name="Guest")
    guest.scopes.set([])
    alone, shared = (f"+{guest.pk}-{tools[name].pk}" for name in ("alone", "shared"))
    now, before = matrix(), AuditEvent.objects.count()
    with pytest.raises(NotAllowed, match="^Guest, shared: You do not have tool:shared"):
        save_matrix(now, now.version, [alone, shared], actor=manager, request=None)
    assert not guest.scopes.exists() and AuditEvent.objects.count() == before
    done = save_matrix(now, now.version, [alone], actor=manager, request=None)
    assert [change.code for change in done] == [alone]
    assert [scope.name for scope in guest.scopes.all()] == ["tool:alone"]


def test_no_one_changes_a_role_of_their_own(
    tools: dict[str, Primitive], manager: User
) -> None:
    own = Role.objects.get(name="Makers")
    now = matrix()
    taken = [f"-{own.pk}-{tools['alone'].pk}"]
    with pytest.raises(NotAllowed, match="You have Makers yourself"):
        save_matrix(now, now.version, taken, actor=manager, request=None)
    assert own.scopes.filter(name="tool:alone").exists()


@pytest.mark.parametrize("give", [True, False])
def test_a_change_is_recorded_with_its_actor_and_address(
    tools: dict[str, Primitive], carol: User, rf: RequestFactory, give: bool
) -> None:
    role, tool = Role.objects.get(name="Guest"), tools["alone"]
    other = Role.objects.get(name="User")
    own = Scope.objects.get(name="tool:alone")
    role.scopes.set([] if give else [own])
    other.scopes.add(own)
    now = matrix()
    request = rf.post("/", REMOTE_ADDR="192.0.2.7")
    code = f"{'+' if give else '-'}{role.pk}-{tool.pk}"
    save_matrix(now, now.version, [code], actor=carol, request=request)
    (event,) = AuditEvent.objects.filter(action__startswith="role.scope_")
    assert event.action == ("role.scope_given" if give else "role.scope_taken")
    assert (event.actor, event.actor_id) == ("carol", carol.pk)
    assert (event.object, event.address) == ("Guest", "192.0.2.7")
    assert (event.via, event.changes) == (
        "access matrix",
        {"tool:alone": [not give, give]},
    )
    assert role.scopes.filter(pk=own.pk).exists() is give
    assert other.scopes.filter(pk=own.pk).exists()


def test_a_tick_accepts_what_is_held_as_it_was_shown(
    tools: dict[str, Primitive], carol: User, rf: RequestFactory
) -> None:
    role, tool = Role.objects.get(name="Guest"), tools["alone"]
    role.scopes.set([])
    Primitive.objects.filter(pk=tool.pk).update(
        state="held", definition="d" * 20, accepted_hash=""
    )
    now, request = matrix(), rf.post("/", REMOTE_ADDR="192.0.2.7")
    code = f"+{role.pk}-{tool.pk}"
    (change,) = save_matrix(now, now.version, [code], actor=carol, request=request)
    assert change.accepts and change.role == role and change.primitive == tool
    tool.refresh_from_db()
    assert (tool.state, tool.accepted_hash) == ("accepted", "d" * 20)
    event = AuditEvent.objects.get(action="primitive.accepted")
    assert (event.actor, event.address, event.via, event.object) == (
        *("carol", "192.0.2.7", "access matrix"),
        str(tool),
    )
    assert event.changes == {"definition": ["", "d" * 16]}


def test_a_removed_tick_accepts_nothing(
    tools: dict[str, Primitive], carol: User
) -> None:
    role, tool = Role.objects.get(name="Guest"), tools["alone"]
    role.scopes.add(Scope.objects.get(name="tool:alone"))
    Primitive.objects.filter(pk=tool.pk).update(state="held")
    now = matrix()
    save_matrix(now, now.version, [f"-{role.pk}-{tool.pk}"], actor=carol, request=None)
    tool.refresh_from_db()
    assert tool.state == "held" and not role.scopes.filter(name="tool:alone").exists()
