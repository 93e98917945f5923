"""Which roles count at a moment, their scopes, their ends and their networks."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.authorization.role_grants import (
    ANYWHERE,
    current_grants,
    grants_of_pairs,
    role_networks,
)
from accounts.models import Role, RoleAssignment
from tests.support.accounts import HOUR, role_of, stop_clock
from tests.support.users import account

pytestmark = pytest.mark.django_db


def test_scopes_name_every_unexpired_role_that_grants_them() -> None:
    user = account("u", "User")
    account("other", "Admin")
    end = timezone.now() + HOUR
    for role, at in (
        (Role.objects.get(name="Guest"), end),
        (role_of("Empty"), end + HOUR),
        (role_of("Ended", "Ended.Read"), timezone.now() - HOUR),
    ):
        RoleAssignment.objects.grant(user, role, expires_at=at)
    roles, grants, ends = current_grants(user.pk)
    assert set(roles) == {"User", "Guest", "Empty"} and len(roles) == 3
    assert {scope: set(names) for scope, names in grants.items()} == {
        "Guest.Read": {"User", "Guest"},
        "User.Read": {"User"},
        "User.Write": {"User"},
    }
    assert set(ends) == {end.timestamp(), (end + HOUR).timestamp()}
    later = current_grants(user.pk, end)
    assert set(later[0]) == {"User", "Empty"} and set(later[2]) == {
        (end + HOUR).timestamp()
    }


def test_a_role_ends_at_the_moment_of_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now, user = stop_clock(monkeypatch), account("u")
    guest = Role.objects.get(name="Guest")
    RoleAssignment.objects.grant(user, guest, expires_at=now)
    assert current_grants(user.pk) == ((), {}, [])
    just = now - timedelta(microseconds=1)
    assert current_grants(user.pk, just)[0] == ("Guest",)


def test_equal_pairs_share_one_read_only_value() -> None:
    pairs = (("A", "x"), ("B", "x"), ("A", "y"), ("C", None))
    roles, grants = grants_of_pairs(pairs)
    assert roles == ("A", "B", "C")
    assert dict(grants) == {"x": ("A", "B"), "y": ("A",)}
    assert grants_of_pairs(tuple(pairs))[1] is grants
    with pytest.raises(TypeError):
        grants["z"] = ()  # type: ignore[index]


def test_networks_of_the_named_roles_that_have_some() -> None:
    role_of("Office", networks="10.0.0.0/8, 192.0.2.1")
    role_of("Home", networks="198.51.100.0/24")
    assert role_networks(["Office", "User"]) == {"Office": ("10.0.0.0/8", "192.0.2.1")}
    assert role_networks(["User", "Guest"]) is ANYWHERE
    assert role_networks([]) is ANYWHERE
