"""Every rule of delegated administration about roles and scopes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.authorization.delegation import (
    NEVER,
    objection_to_granting,
    objection_to_removing,
    objection_to_role,
    objection_to_scope,
    scope_objection,
    scopes_until,
    widens_access,
)
from accounts.models import Role, RoleAssignment, User
from tests.support.accounts import HOUR, role_of, stop_clock
from tests.support.users import account

pytestmark = pytest.mark.django_db
OFFICE, ROOM = "10.0.0.0/8", "10.1.0.0/16"
SECOND = timedelta(seconds=1)

ALLOWED = ""
OWN = "You cannot change your own roles."
SUPERUSERS = "Only superusers can change the roles of a superuser."
ADMINISTRATIVE = "Only superusers can grant or remove administrative scopes."
MISSING = "You do not have {} yourself. Ask an administrator who has it."
EARLIER = "Choose an earlier end date."
HELD = "You have {} yourself. Ask another administrator to change it."
SUPERUSER_HAS = "A superuser has {}. Only superusers can change it."


@pytest.fixture(scope="module", autouse=True)
def roles(module_transaction: None) -> None:
    """Roles of each kind beside Admin, User and Guest."""
    role_of("Payroll", "Payroll.Read")
    role_of("Office", "User.Read", networks=OFFICE)
    role_of("Room", "User.Read", networks=ROOM)
    role_of("Empty")


def actor_with(*roles: str, **columns: Any) -> User:
    return account("actor", *roles, **{"is_staff": True, **columns})


def named(role: str) -> Role:
    return Role.objects.get(name=role)


def says(text: str, expected: str) -> bool:
    """Whether it is this objection; an empty one is equal only."""
    return text.startswith(expected) if expected else text == ""


def test_scopes_count_until_the_last_role_that_grants_them_ends() -> None:
    user, now = account("u", "Guest"), timezone.now()
    other = account("other", "Payroll")
    grant = RoleAssignment.objects.grant
    grant(user, named("User"), expires_at=now + HOUR)
    grant(user, named("Office"), expires_at=now + 2 * HOUR)
    grant(user, named("Empty"))
    grant(user, named("Admin"), expires_at=now - SECOND)
    assert scopes_until(user) == {
        "Guest.Read": NEVER,
        "User.Read": now + HOUR,
        "User.Write": now + HOUR,
    }
    assert scopes_until(user, ROOM)["User.Read"] == now + 2 * HOUR
    assert scopes_until(user, OFFICE)["User.Read"] == now + 2 * HOUR
    assert scopes_until(user, "10.0.0.0/7")["User.Read"] == now + HOUR
    assert set(scopes_until(other)) == {"Payroll.Read"}


def test_the_later_of_two_ends_counts_in_either_order() -> None:
    now = timezone.now()
    first, second = role_of("First", "X"), role_of("Second", "X")
    for name, ends in {"a": (1, 2), "b": (2, 1)}.items():
        user = account(name)
        for role, hours in zip((first, second), ends, strict=True):
            end = now + hours * HOUR
            RoleAssignment.objects.grant(user, role, expires_at=end)
        assert scopes_until(user) == {"X": now + 2 * HOUR}


REMOVALS = [
    # actor's roles, role, objection
    (("User",), "User", ALLOWED),
    (("User",), "Guest", ALLOWED),
    (("User",), "Office", ALLOWED),
    (("User",), "Empty", ALLOWED),
    (("User",), "Payroll", MISSING.format("Payroll.Read")),
    (("User",), "Admin", ADMINISTRATIVE),
    (("Admin",), "Admin", ADMINISTRATIVE),
    (("Admin",), "User", ALLOWED),
    (("Guest",), "User", MISSING.format("User.Read, User.Write")),
    ((), "Guest", MISSING.format("Guest.Read")),
    ((), "Empty", ALLOWED),
    (("Office",), "Office", ALLOWED),
    (("Office",), "Room", ALLOWED),
    (("Room",), "Office", MISSING.format("User.Read")),
    (("Office", "Guest"), "User", MISSING.format("User.Read, User.Write")),
]


@pytest.mark.parametrize("is_staff", [True, False])
@pytest.mark.parametrize(("mine", "role", "expected"), REMOVALS)
def test_roles_are_granted_and_removed_only_within_ones_own_rights(
    mine: tuple[str, ...], role: str, expected: str, is_staff: bool
) -> None:
    actor, user = actor_with(*mine, is_staff=is_staff), account("u")
    for text in (
        objection_to_removing(actor, user, named(role)),
        objection_to_granting(actor, user, named(role), None),
    ):
        assert says(text, expected), text


@pytest.mark.parametrize("role", ["Admin", "Guest", "Empty", "Payroll"])
def test_nobody_changes_their_own_roles_except_superusers(role: str) -> None:
    actor, top = actor_with("Admin"), account("top", is_superuser=True)
    same = User.objects.get(pk=actor.pk)
    for objection in (
        objection_to_removing(actor, same, named(role)),
        objection_to_granting(actor, same, named(role), None),
    ):
        assert says(objection, OWN)
    assert objection_to_removing(top, top, named(role)) == ALLOWED
    assert objection_to_granting(top, top, named(role), None) == ALLOWED


@pytest.mark.parametrize("role", ["Admin", "Guest", "Empty", "Payroll"])
def test_only_superusers_change_the_roles_of_a_superuser(role: str) -> None:
    actor, top = actor_with("Admin"), account("top", is_superuser=True)
    other = account("other", is_superuser=True)
    assert objection_to_removing(actor, top, named(role)) == SUPERUSERS
    assert objection_to_granting(actor, top, named(role), None) == SUPERUSERS
    assert objection_to_removing(other, top, named(role)) == ALLOWED
    assert objection_to_granting(other, top, named(role), None) == ALLOWED


def test_a_role_is_granted_to_an_account_that_is_not_saved_yet() -> None:
    actor = actor_with("Guest")
    assert objection_to_granting(actor, User(), named("Guest"), None) == ALLOWED


def ending(user: User, role: str, at: Any) -> None:
    RoleAssignment.objects.grant(user, named(role), expires_at=at)


def test_a_grant_lasts_no_longer_than_ones_own() -> None:
    actor, user, end = actor_with(), account("u"), timezone.now() + 5 * HOUR
    ending(actor, "Guest", end)
    guest = named("Guest")
    assert objection_to_granting(actor, user, guest, end) == ALLOWED
    assert objection_to_granting(actor, user, guest, end - SECOND) == ALLOWED
    for until in (end + SECOND, None):
        text = objection_to_granting(actor, user, guest, until)
        assert text == (
            "Your own access to the scopes of Guest ends on "
            f"{end:%Y-%m-%d %H:%M} UTC. {EARLIER}"
        )
    assert objection_to_removing(actor, user, guest) == ALLOWED


def test_the_first_end_of_all_scopes_of_the_role_counts() -> None:
    actor, user, end = actor_with(), account("u"), timezone.now() + 5 * HOUR
    ending(actor, "Guest", end)
    ending(actor, "Payroll", None)
    both = role_of("Both", "Guest.Read", "Payroll.Read")
    assert objection_to_granting(actor, user, both, end) == ALLOWED
    assert EARLIER in objection_to_granting(actor, user, both, end + SECOND)
    assert objection_to_granting(actor, user, named("Payroll"), None) == ALLOWED


def test_a_longer_right_limited_to_networks_extends_no_wider_grant() -> None:
    actor, user, end = actor_with(), account("u"), timezone.now() + 5 * HOUR
    ending(actor, "User", end)
    ending(actor, "Office", None)
    wide = role_of("Wide", "User.Read")
    assert objection_to_granting(actor, user, named("Office"), None) == ALLOWED
    assert objection_to_granting(actor, user, wide, end) == ALLOWED
    assert EARLIER in objection_to_granting(actor, user, wide, None)


def test_a_superuser_without_roles_grants_everything_without_end() -> None:
    top, user = account("top", is_superuser=True), account("u")
    for role in Role.objects.all():
        assert objection_to_granting(top, user, role, None) == ALLOWED
        assert objection_to_removing(top, user, role) == ALLOWED


def test_an_expired_role_of_the_actor_grants_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = stop_clock(monkeypatch)
    actor, user = actor_with(), account("u")
    ending(actor, "Guest", now)
    text = MISSING.format("Guest.Read")
    assert objection_to_granting(actor, user, named("Guest"), None) == text
    ending(actor, "Guest", now + SECOND)
    assert objection_to_removing(actor, user, named("Guest")) == ALLOWED


SCOPES = [
    # actor's roles, scopes, networks, objection
    (("User",), ["User.Read"], "", ALLOWED),
    (("User",), [], "", ALLOWED),
    ((), [], "", ALLOWED),
    (("User",), ["User.Read", "Z", "A"], "", MISSING.format("A, Z")),
    (("Admin",), ["Admin.Write"], "", ADMINISTRATIVE),
    (("Admin",), ["User.Read", "Admin.Write"], "", ADMINISTRATIVE),
    (("Office",), ["User.Read"], "", MISSING.format("User.Read")),
    (("Office",), ["User.Read"], ROOM, ALLOWED),
    (("Office",), ["User.Read"], "11.0.0.0/8", MISSING.format("User.Read")),
]


@pytest.mark.parametrize(("mine", "scopes", "networks", "expected"), SCOPES)
def test_scopes_are_granted_within_ones_own(
    mine: tuple[str, ...], scopes: list[str], networks: str, expected: str
) -> None:
    assert scope_objection(actor_with(*mine), iter(scopes), networks) == expected
    top = account("top", is_superuser=True)
    assert scope_objection(top, scopes, networks) == ALLOWED


def test_scopes_are_for_any_address_unless_networks_are_named() -> None:
    office, anywhere = actor_with("Office"), account("other", "User")
    assert scope_objection(anywhere, ["User.Read"]) == ALLOWED
    assert scope_objection(office, ["User.Read"]) == MISSING.format("User.Read")


ROLES = [
    # actor's roles, role to change, objection
    (("User",), "Guest", ALLOWED),
    (("User",), "Empty", ALLOWED),
    (("User",), "Office", ALLOWED),
    (("User",), "User", HELD.format("User")),
    (("User",), "Payroll", MISSING.format("Payroll.Read")),
    (("Room",), "Office", MISSING.format("User.Read")),
    (("Office",), "Room", ALLOWED),
    (("User",), "Admin", ADMINISTRATIVE),
    (("Admin",), "Admin", HELD.format("Admin")),
    ((), "Guest", MISSING.format("Guest.Read")),
]


@pytest.mark.parametrize(("mine", "role", "expected"), ROLES)
def test_a_role_is_changed_within_ones_own_rights(
    mine: tuple[str, ...], role: str, expected: str
) -> None:
    actor, top = actor_with(*mine), account("top", is_superuser=True)
    account("holder", role)
    assert objection_to_role(actor, named(role)) == expected
    assert objection_to_scope(actor, named(role), "") == expected
    assert objection_to_role(top, named(role)) == ALLOWED
    assert objection_to_scope(top, named(role), "Any.Scope") == ALLOWED


def test_a_role_that_has_ended_is_still_ones_own() -> None:
    """It could be extended later."""
    actor = actor_with("User")
    ending(actor, "Guest", timezone.now() - HOUR)
    assert objection_to_role(actor, named("Guest")) == HELD.format("Guest")


def test_a_role_of_a_superuser_is_changed_by_superusers_only() -> None:
    actor, top = actor_with("User"), account("top", "Guest", is_superuser=True)
    assert objection_to_role(actor, named("Guest")) == SUPERUSER_HAS.format("Guest")
    assert objection_to_role(top, named("Guest")) == ALLOWED


ADDED = [
    # actor's roles, role to change, scope to add or remove, objection
    (("User",), "Guest", "User.Read", ALLOWED),
    (("User",), "Guest", "Payroll.Read", MISSING.format("Payroll.Read")),
    (("User",), "Guest", "Admin.Write", ADMINISTRATIVE),
    (("User",), "User", "User.Read", HELD.format("User")),
    (("User",), "Payroll", "User.Read", MISSING.format("Payroll.Read")),
    (("Office",), "Room", "User.Read", ALLOWED),
    (("Office",), "Empty", "User.Read", MISSING.format("User.Read")),
]


@pytest.mark.parametrize(("mine", "role", "scope", "expected"), ADDED)
def test_a_scope_is_added_within_ones_own_rights(
    mine: tuple[str, ...], role: str, scope: str, expected: str
) -> None:
    assert objection_to_scope(actor_with(*mine), named(role), scope) == expected


@pytest.mark.parametrize(
    ("changes", "widens"),
    [
        ({}, False),
        ({"enabled": (False, True)}, True),
        ({"enabled": (True, False)}, False),
        ({"sensitive": (True, False)}, True),
        ({"sensitive": (False, True)}, False),
        ({"required_scopes": (["A"], ["A", "B"])}, True),
        ({"required_scopes": (["A", "B"], ["A"])}, False),
        ({"required_scopes": (["A"], ["B"])}, True),
        ({"required_scopes": (["A"], ["A"])}, False),
        ({"required_scopes": (["A"], [])}, False),
        ({"required_scopes": ([], ["A"])}, True),
        ({"enabled": (True, False), "sensitive": (True, False)}, True),
        ({"enabled": (True, False), "required_scopes": ([], ["A"])}, True),
        ({"title": (False, True)}, False),
    ],
)
def test_a_change_widens_access_if_more_people_may_call(
    changes: dict[str, Any], widens: bool
) -> None:
    assert widens_access(changes) is widens
