"""A role loses one primitive of a shared scope, and nobody else loses anything."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.test import RequestFactory
from django.utils import timezone

from accounts.authorization.delegation import NotAllowed
from accounts.models import AuditEvent, Role, RoleAssignment, Scope, User
from accounts.models.audit.events import subject_of
from mcp_bridge.access.matrix.cells import Matrix, MatrixChange
from mcp_bridge.access.matrix.replacement import count_users, outcomes
from mcp_bridge.access.matrix.saving import save_matrix
from mcp_bridge.models import Primitive
from tests.support.users import account

pytestmark = pytest.mark.django_db

ROLES = {
    "reader": ("Read",),
    "writer": ("Read", "Write"),
    "owner": ("Read", "tool:look"),
    "sleeper": ("tool:bare",),
    "stranger": (),
}
TOOLS = {"look": ("Read", "Write", "tool:look"), "bare": ("Read",)}
"""`bare` does not require its own scope, which `sleeper` has without effect."""


@pytest.fixture(autouse=True)
def rows(db: None) -> None:
    Primitive.objects.all().delete()
    Role.objects.all().delete()
    for name in ("Read", "Write", "tool:look", "tool:bare"):
        Scope.objects.get_or_create(name=name)
    for name, scopes in ROLES.items():
        Role.objects.create(name=name).scopes.set(named(scopes))
    for name, scopes in TOOLS.items():
        row = Primitive.objects.create(kind="tool", name=name)
        row.required_scopes.set(named(scopes))


def named(scopes: Iterable[str]) -> list[Scope]:
    return list(Scope.objects.filter(name__in=scopes))


def matrix(*roles: str) -> Matrix:
    shown = Role.objects.filter(name__in=roles or ROLES)
    return Matrix(Primitive.objects.all(), shown)


def code(sign: str, role: str, tool: str) -> str:
    pair = Role.objects.get(name=role).pk, Primitive.objects.get(name=tool).pk
    return f"{sign}{pair[0]}-{pair[1]}"


def save(actor: User, *codes: str, shown: tuple[str, ...] = ()) -> list[MatrixChange]:
    now = matrix(*shown)
    return save_matrix(now, now.version, codes, actor=actor, request=None)


def covering(tool: str) -> set[str]:
    """Names of the roles that cover the tool."""
    scopes = Primitive.objects.get(name=tool).required_scopes.all()
    return set(Role.objects.filter(scopes__in=scopes).values_list("name", flat=True))


@pytest.fixture
def carol() -> User:
    return account("carol", is_staff=True, is_superuser=True)


@pytest.mark.parametrize(
    ("tool", "taken", "required"),
    [
        ("look", {"reader"}, {"Write", "tool:look"}),
        ("look", {"writer"}, {"tool:look"}),
        ("look", {"owner"}, {"Write", "tool:look"}),
        ("look", {"reader", "writer", "owner"}, {"tool:look"}),
        ("bare", {"reader"}, {"tool:bare"}),
        ("bare", {"reader", "writer", "owner"}, set()),
    ],
)
def test_only_the_named_roles_lose_it(
    carol: User, tool: str, taken: set[str], required: set[str]
) -> None:
    before = covering(tool)
    save(carol, *(code("-", role, tool) for role in taken), shown=tuple(taken))
    row = Primitive.objects.get(name=tool)
    assert {scope.name for scope in row.required_scopes.all()} == required
    # The sleeper's own scope takes effect once it is required.
    woken = {"sleeper"} if "tool:bare" in required else set()
    assert covering(tool) == (before - taken) | woken


def test_a_role_that_keeps_another_shared_scope_gets_no_own_one(carol: User) -> None:
    save(carol, code("-", "reader", "look"))
    writer = Role.objects.get(name="writer")
    assert not writer.scopes.filter(name="tool:look").exists(), "Write is enough"
    owner = Role.objects.get(name="owner")
    assert {s.name for s in owner.scopes.all()} == {"Read", "tool:look"}


def test_one_role_gains_while_another_loses(carol: User) -> None:
    save(carol, code("-", "reader", "look"), code("+", "stranger", "look"))
    assert covering("look") == {"writer", "owner", "stranger"}


def test_users_that_gain_and_lose_are_counted_once() -> None:
    """Inactive users, expired assignments and users of two roles."""
    everybody = {name: account(name) for name in ("a", "b", "c", "d", "e")}
    User.objects.filter(username="d").update(is_active=False)
    past = timezone.now() - timedelta(minutes=1)
    for user, role in (
        ("a", "reader"),
        ("b", "reader"),
        ("b", "writer"),
        ("d", "reader"),
        ("c", "stranger"),
    ):
        row = Role.objects.get(name=role)
        RoleAssignment.objects.grant(everybody[user], row)
    reader = Role.objects.get(name="reader")
    RoleAssignment.objects.create(user=everybody["e"], role=reader, expires_at=past)
    now = matrix()
    codes = [code("-", "reader", "look"), code("+", "stranger", "look")]
    found = outcomes(now, now.parse_changes([*codes, code("-", "reader", "bare")]))
    count_users(found)
    numbers = {one.primitive.name: (one.gaining, one.losing) for one in found}
    assert numbers == {"look": (1, 1), "bare": (0, 1)}


def test_who_loses_an_own_scope_is_counted() -> None:
    row = Primitive.objects.create(kind="tool", name="own")
    Scope.objects.get_or_create(name="tool:own")
    row.required_scopes.set(named(["tool:own"]))
    for name in ("reader", "owner"):
        Role.objects.get(name=name).scopes.add(*named(["tool:own"]))
        RoleAssignment.objects.grant(account(name), Role.objects.get(name=name))
    now = matrix()
    found = outcomes(now, now.parse_changes([code("-", "reader", "own")]))
    count_users(found)
    (one,) = found
    owner, reader = (Role.objects.get(name=n).pk for n in ("owner", "reader"))
    assert one.before == {owner, reader} and one.after == {owner}
    assert (one.gaining, one.losing) == (0, 1)


def test_equal_changes_are_counted_in_one_query(
    django_assert_num_queries: object,
) -> None:
    for number in range(20):
        row = Primitive.objects.create(kind="tool", name=f"t{number}")
        row.required_scopes.set(named(["Read"]))
    now = matrix()
    tools = Primitive.objects.filter(name__startswith="t").values_list(
        "name", flat=True
    )
    found = outcomes(now, now.parse_changes([code("-", "stranger", t) for t in tools]))
    assert found == []
    reader = [code("-", "reader", tool) for tool in tools]
    found = outcomes(now, now.parse_changes(reader))
    with django_assert_num_queries(1):  # type: ignore[operator]
        count_users(found)
    assert len(found) == 20


@pytest.fixture
def staff() -> User:
    """May change roles, and has all the scopes of `reader` and `owner`."""
    user = account("rita", is_staff=True)
    names = ("change_role", "view_role", "view_primitive", "change_primitive")
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    role = Role.objects.create(name="staff")
    role.scopes.set(named(["Read", "Write", "tool:look", "tool:bare"]))
    RoleAssignment.objects.grant(user, role)
    return user


def test_staff_replace_a_scope_that_they_may_change(staff: User) -> None:
    """Their own role would get a scope, which nobody may do; so it keeps one."""
    save(staff, code("-", "reader", "look"))
    assert covering("look") == {"writer", "owner", "staff"}


def test_who_may_not_change_tools_takes_no_shared_access(staff: User) -> None:
    staff.user_permissions.remove(Permission.objects.get(codename="change_primitive"))
    staff = User.objects.get(pk=staff.pk)
    before = covering("look")
    with pytest.raises(NotAllowed, match="^look: You may not change which scopes"):
        save(staff, code("-", "reader", "look"))
    assert covering("look") == before


def test_only_superusers_make_an_own_scope_a_required_one(staff: User) -> None:
    """Roles that hold it without effect would gain."""
    with pytest.raises(NotAllowed, match="^bare: Only superusers can add a required"):
        save(staff, code("-", "reader", "bare"))
    assert covering("bare") == {"reader", "writer", "owner", "staff"}


def test_a_role_above_the_actor_is_not_changed(staff: User) -> None:
    boss = Role.objects.create(name="boss")
    boss.scopes.set(named(["Read"]))
    RoleAssignment.objects.grant(account("root", is_superuser=True), boss)
    with pytest.raises(NotAllowed, match="^boss, look: A superuser has boss"):
        save(staff, code("-", "reader", "look"))
    assert "reader" in covering("look")


def test_a_role_with_wider_networks_than_the_actors_is_not_given_a_scope(
    staff: User,
) -> None:
    """The own scope of the actor is only valid in their network."""
    RoleAssignment.objects.filter(user=staff).delete()
    office = Role.objects.create(name="office", networks="192.0.2.0/24")
    office.scopes.set(named(["tool:look"]))
    everywhere = Role.objects.create(name="everywhere")
    everywhere.scopes.set(named(["Read", "Write"]))
    for role in (office, everywhere):
        RoleAssignment.objects.grant(staff, role)
    Role.objects.filter(name="reader").update(networks="192.0.2.0/24")
    Role.objects.create(name="keeper").scopes.set(named(["Read"]))
    with pytest.raises(NotAllowed, match="^keeper, look: You do not have tool:look"):
        save(staff, code("-", "reader", "look"))


def test_a_replacement_is_recorded_for_the_tool_and_each_role(
    carol: User, rf: RequestFactory
) -> None:
    now, request = matrix(), rf.post("/", REMOTE_ADDR="192.0.2.7")
    code_ = code("-", "reader", "bare")
    save_matrix(now, now.version, [code_], actor=carol, request=request)
    events = list(AuditEvent.objects.order_by("pk"))
    given = {"tool:bare": [False, True]}
    assert [(e.action, e.object, e.changes) for e in events] == [
        (
            "primitive.changed",
            str(Primitive.objects.get(name="bare")),
            {"required_scopes": [["Read"], ["tool:bare"]]},
        ),
        ("role.scope_given", "writer", given),
        ("role.scope_given", "owner", given),
    ]
    about = {(e.actor, e.address, e.via) for e in events}
    assert about == {("carol", "192.0.2.7", "access matrix")}
    assert events[0].subject == subject_of(Primitive.objects.get(name="bare"))


def test_an_own_scope_that_does_not_exist_yet_is_made(carol: User) -> None:
    Scope.objects.filter(name="tool:bare").delete()
    save(carol, code("-", "reader", "bare"))
    assert covering("bare") == {"writer", "owner"}
