"""The access matrix at /api/v1/access/."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.models import AuditEvent, Role, RoleAssignment, Scope
from mcp_bridge.models import Primitive
from tests.support.admin_api import Caller, member_of
from tests.support.users import account


@pytest.fixture
def caller(db: None) -> Caller:
    return Caller(member_of("superuser"))


def tool(name: str, *scopes: str) -> Primitive:
    row = Primitive.objects.create(kind="tool", name=name)
    found = [Scope.objects.get_or_create(name=one)[0] for one in scopes]
    row.required_scopes.set(found)
    return row


def change(row: Primitive, role: str = "User", allow: bool = True) -> dict[str, Any]:
    return {"role": role, "tool": row.pk, "allow": allow}


def cell(caller: Caller, row: Primitive, role: str = "User") -> dict[str, Any]:
    found = caller.get(f"access/?name={row.name}&role={role}").json()["results"]
    shown: dict[str, Any] = found[0]["roles"][0]
    return shown


def test_a_change_is_reviewed_then_saved(caller: Caller) -> None:
    row = tool("one", "tool:one")
    RoleAssignment.objects.grant(account("bob"), Role.objects.get(name="User"))
    assert cell(caller, row)["allowed"] is False
    review = caller.post("access/review/", {"changes": [change(row)]})
    assert review.status_code == 200, review.content
    assert review.json()["outcomes"][0]["gaining"] == 1
    assert review.json()["objection"] == ""
    body = {"changes": [change(row)], "version": review.json()["version"]}
    saved = caller.post("access/", body)
    assert saved.status_code == 200, saved.content
    assert saved.json()["changes"][0]["allow"] is True
    assert cell(caller, row)["state"] == "own"
    event = AuditEvent.objects.get(action="role.scope_given")
    assert event.actor == "superuser" and event.via == "access matrix"
    again = caller.post("access/", body)
    assert again.status_code == 200 and again.json()["changes"] == []


def test_a_shared_scope_is_replaced(caller: Caller) -> None:
    row = tool("two", "User.Write")
    taken = [change(row, "User", False)]
    review = caller.post("access/review/", {"changes": taken}).json()
    assert review["outcomes"][0]["dropped_scopes"] == ["User.Write"]
    assert review["outcomes"][0]["kept_for"] == ["Admin"]
    caller.post("access/", {"changes": taken, "version": review["version"]})
    assert cell(caller, row)["allowed"] is False
    assert cell(caller, row, "Admin")["allowed"] is True


def test_what_changed_since_the_review_is_not_saved(caller: Caller) -> None:
    row = tool("one", "tool:one")
    version = caller.post("access/review/", {"changes": [change(row)]}).json()
    row.required_scopes.add(Scope.objects.create(name="Other.Read"))
    body = {"changes": [change(row)], "version": version["version"]}
    stale = caller.post("access/", body)
    assert stale.status_code == 409 and "again" in stale.json()["detail"]
    assert not AuditEvent.objects.filter(action="role.scope_given").exists()


def test_impossible_changes_are_named(caller: Caller) -> None:
    row, closed = tool("one", "tool:one"), tool("two", "User.Write")
    wrong = [
        change(row, "No such"),
        {**change(row), "tool": 10**9},
        change(closed, "Guest"),
        change(row),
        change(row),
    ]
    answer = caller.post("access/review/", {"changes": wrong})
    fields = [one["field"].partition(".")[2] for one in answer.json()["errors"]]
    assert answer.status_code == 400
    assert fields == ["0.role", "1.tool", "2.tool", "4.tool"]
    assert "tool:two" in answer.content.decode()
    assert caller.get("access/?role=No").status_code == 400
    assert caller.get(f"access/{row.pk}/?role=No").status_code == 400


def test_one_tool_is_shown_with_one_role(caller: Caller) -> None:
    path = f"access/{tool('one', 'tool:one').pk}/"
    assert len(caller.get(path).json()["roles"]) == Role.objects.count()
    (only,) = caller.get(f"{path}?role=Guest").json()["roles"]
    assert only["role"] == "Guest"


def test_the_rules_of_the_admin_hold(db: None) -> None:
    row = tool("one", "tool:one")
    body = {"changes": [change(row)], "version": "x"}
    manager = Caller(member_of("Role managers"))
    assert manager.get("access/").status_code == 200
    assert manager.post("access/", body).status_code == 403
    helpdesk = Caller(member_of("Helpdesk"))
    assert helpdesk.get("access/").status_code == 404
    assert helpdesk.post("access/review/", body).status_code in (400, 404)
