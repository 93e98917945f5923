"""The marked descriptions are those of the migration."""

from __future__ import annotations

import pytest

from accounts.authorization.default_roles import ROLES, SCOPES
from accounts.models import Role, Scope

pytestmark = pytest.mark.django_db


def test_the_scopes_are_those_of_a_new_installation() -> None:
    stored = dict(Scope.objects.values_list("name", "description"))
    assert {name: stored.get(name) for name in SCOPES} == SCOPES


@pytest.mark.parametrize("name", ROLES)
def test_the_roles_are_those_of_a_new_installation(name: str) -> None:
    description, scopes = ROLES[name]
    role = Role.objects.get(name=name)
    assert role.description == description
    assert {scope.name for scope in role.scopes.all()} == set(scopes)
