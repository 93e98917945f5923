"""Why a change is refused: the reason is about the row, not about the actor."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission

from accounts.models import Role, RoleAssignment, User
from tests.support.admin_api import Caller, member_of
from tests.support.model_rows import client_row
from tests.support.users import account


@pytest.fixture
def olga(db: None) -> Caller:
    """Has every permission and the role Guest, but is no superuser."""
    user = member_of("nobody", "olga")
    user.user_permissions.set(Permission.objects.all())
    RoleAssignment.objects.grant(user, Role.objects.get(name="Guest"))
    return Caller(User.objects.get(pk=user.pk))


def person() -> Any:
    return account("bob", "Admin")


def role() -> Any:
    return Role.objects.get(name="Admin")


def held_by_a_superuser() -> Any:
    carol = account("carol", is_superuser=True)
    return RoleAssignment.objects.grant(carol, Role.objects.get(name="Guest"))[0]


def own() -> Any:
    return RoleAssignment.objects.get(user__username="olga")


def client() -> Any:
    carol = account("carol", is_superuser=True)
    return client_row("app", service_account=carol)


REFUSED = [
    ("people", person, "This account has more permissions than yours."),
    ("roles", role, "Only superusers can grant or remove administrative"),
    ("assignments", held_by_a_superuser, "the roles of a superuser"),
    ("assignments", own, "You cannot change your own roles."),
    ("clients", client, "The client acts as carol"),
]
BODIES = {"people": {"first_name": "x"}, "assignments": {"reason": "x"}}


@pytest.mark.parametrize(("path", "row", "text"), REFUSED)
@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_refusal_names_the_reason(
    olga: Caller, path: str, row: Any, text: str, method: str
) -> None:
    if (path, method) == ("people", "DELETE"):
        return
    where = f"{path}/{row().pk}/"
    body = BODIES.get(path, {"name": "x"}) if method == "PATCH" else None
    answer = olga.send(method, where, body)
    assert answer.status_code == 403 and text in answer.json()["detail"]
