"""Commands that list: the same content as lines and as JSON."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts.models import Role, RoleAssignment, Scope
from mcp_bridge.access import explain
from mcp_bridge.models import Primitive, UpstreamServer
from tests.support.users import account


def printed(name: str, *arguments: str) -> str:
    out = io.StringIO()
    call_command(name, *arguments, stdout=out)
    return out.getvalue()


def data(name: str, *arguments: str) -> Any:
    return json.loads(printed(name, *arguments, "--json"))


@pytest.fixture
def alice(db: None) -> Any:
    """She may use `one`; `two` needs a scope that no role gives."""
    for name, scope in (("one", "User.Read"), ("two", "tool:two")):
        row = Primitive.objects.create(kind="tool", name=name)
        row.required_scopes.set([Scope.objects.get_or_create(name=scope)[0]])
    return account("alice", "User")


def test_users_have_their_unexpired_roles(alice: Any) -> None:
    soon = timezone.now() + timedelta(days=1)
    guest, admin = (Role.objects.get(name=name) for name in ("Guest", "Admin"))
    RoleAssignment.objects.grant(alice, guest, expires_at=soon)
    past = timezone.now() - timedelta(days=1)
    RoleAssignment.objects.grant(alice, admin, expires_at=past)
    account("root", is_superuser=True, is_staff=True)
    account("gone", is_active=False)
    lines = printed("list_users").splitlines()
    assert lines == [
        f"alice: Guest until {soon:%Y-%m-%d %H:%M}, User",
        "root: no role; superuser",
    ]
    (one,) = data("list_users", "--role", "User")
    assert one["username"] == "alice" and set(one["roles"]) == {"Guest", "User"}
    assert data("list_users", "--role", "Admin") == []
    assert printed("list_users", "--inactive").strip() == "gone: no role; deactivated"
    with pytest.raises(CommandError, match="there are: Admin, Guest, User"):
        printed("list_users", "--role", "Boss")


def test_a_user_is_listed_with_all_that_is_known(alice: Any) -> None:
    last = timezone.now() - timedelta(days=3)
    columns = {"email": "robot@a.example", "last_login": last}
    account("robot", "Guest", is_service_account=True, is_staff=True, **columns)
    assert printed("list_users", "--role", "Guest").splitlines() == [
        "robot: Guest; staff; service account"
    ]
    (found,) = data("list_users", "--role", "Guest")
    assert datetime.fromisoformat(found.pop("last_login")) == last
    assert found == {
        "username": "robot",
        "email": "robot@a.example",
        "active": True,
        "staff": True,
        "superuser": False,
        "service_account": True,
        "roles": {"Guest": None},
    }
    assert [one["last_login"] for one in data("list_users", "--role", "User")] == [None]


def test_a_tool_of_an_upstream_server_is_listed_with_it(alice: Any) -> None:
    server = UpstreamServer.objects.create(name="shop", url="https://a.example/mcp")
    Primitive.objects.filter(name="two").update(upstream=server, title="Two!")
    assert data("list_tools")[1] == {
        "kind": "tool",
        "name": "two",
        "title": "Two!",
        "enabled": True,
        "sensitive": False,
        "state": "accepted",
        "upstream": "shop",
        "scopes": ["tool:two"],
        "roles": [],
    }


def test_tools_have_their_roles(alice: Any) -> None:
    Primitive.objects.filter(name="two").update(enabled=False, sensitive=True)
    lines = printed("list_tools", "--kind", "tool").splitlines()
    assert lines == [
        "tool one: Admin, User",
        "tool two: no role; sensitive; disabled",
    ]
    assert [row["scopes"] for row in data("list_tools")] == [
        ["User.Read"],
        ["tool:two"],
    ]
    assert "Nothing is offered" in printed("list_tools", "--kind", "prompt")
    row = Primitive.objects.get(name="one")
    row.required_scopes.add(Scope.objects.get(name="Admin.Write"))
    (one, two) = data("list_tools")
    assert one["scopes"] == ["Admin.Write", "User.Read"]
    assert (one["enabled"], two["enabled"]) == (True, False)
    assert (one["sensitive"], two["sensitive"]) == (False, True)
    assert one["upstream"] is None and one["roles"] == ["Admin", "User"]


def test_a_check_names_the_decision_and_its_reason(alice: Any) -> None:
    allowed = data("check_access", "alice", "one")
    assert allowed["allowed"] and allowed["reason"] == "granted"
    assert allowed["why"].startswith("role User grants User.Read")
    denied = data("check_access", "alice", "two")
    assert not denied["allowed"] and denied["reason"] == "role_lacks_scope"
    assert allowed["fix"] == "" and denied["fix"].startswith("Assign a role")
    text = printed("check_access", "alice", "two")
    assert "denied (requires one of tool:two" in text and "Fix: Assign a role" in text


def test_a_check_of_what_does_not_exist_names_the_next_command(alice: Any) -> None:
    for arguments, text in (
        (("nobody", "one"), "add_user nobody"),
        (("alice", "three"), "list_tools"),
    ):
        with pytest.raises(CommandError, match=text):
            printed("check_access", *arguments)
    Primitive.objects.create(kind="prompt", name="one")
    with pytest.raises(CommandError, match="add --kind"):
        printed("check_access", "alice", "one")
    for kind, allowed in (("tool", True), ("prompt", False)):
        found = data("check_access", "alice", "one", "--kind", kind)
        assert (found["kind"], found["allowed"]) == (kind, allowed)


def test_a_deactivated_person_is_denied(alice: Any) -> None:
    alice.is_active = False
    alice.save()
    found = data("check_access", "alice", "one")
    assert found["reason"] == "inactive_user" and "deactivated" in found["why"]
    assert found["allowed"] is False


def test_limits_of_arguments_and_states_are_printed(
    alice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "limits_of", lambda *about: ["amount at most 5"])
    assert "Limits: amount at most 5" in printed("check_access", "alice", "one")
    assert data("check_access", "alice", "one")["limits"] == ["amount at most 5"]
    Primitive.objects.filter(name="two").update(state="held")
    assert "tool two: no role; held" in printed("list_tools").splitlines()


def test_the_doctor_prints_its_findings_as_json(db: None, settings: Any) -> None:
    settings.WORKERS, settings.VALKEY_URL = 3, ""
    out = io.StringIO()
    with suppress(SystemExit):
        call_command("doctor", "--json", stdout=out)
    found = {one["id"]: one for one in json.loads(out.getvalue())}
    assert found["portico.W005"]["level"] == "warning"
    assert "VALKEY_URL" in found["portico.W005"]["fix"]


def test_json_is_readable_in_every_language(alice: Any) -> None:
    account("\uae40\ubbfc\uc218")
    assert '"\uae40\ubbfc\uc218"' in printed("list_users", "--json")
