"""Administration by MCP tools with Admin.Write, and its limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.utils import timezone

from accounts.models import (
    AuditEvent,
    IssuedToken,
    Role,
    RoleAssignment,
    Scope,
    User,
)
from tests.support.mcp_client import McpClient, challenge, mcp_client, message_in
from tests.support.server import Portico
from tests.support.users import make_user

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]


WIDE = "mcp Admin.Write"
WRITING = ("grant_role", "revoke_role", "revoke_tokens")


def structured(client: McpClient, tool: str, **arguments: Any) -> Any:
    """The structured content of a tool's response."""
    return message_in(client.call(tool, **arguments))["result"]["structuredContent"][
        "result"
    ]


def test_a_role_is_granted_and_revoked_at_once(server: Portico) -> None:
    """The next message of an open client sees the change."""
    make_user("sybil", "User")
    carol, sybil = mcp_client(server, "carol", scope=WIDE), mcp_client(server, "sybil")
    assert not sybil.allowed("rule")
    text = carol.text("grant_role", user="sybil", role="Admin", reason="stand-in")
    assert text == "sybil now has Admin." and sybil.allowed("rule")
    assignment = RoleAssignment.objects.get(user__username="sybil", role__name="Admin")
    assert (
        assignment.granted_by is not None and assignment.granted_by.username == "carol"
    )
    carol.text("revoke_role", user="sybil", role="Admin")
    assert not sybil.allowed("rule")
    events = AuditEvent.objects.filter(action__startswith="role.", actor="carol")[:2]
    assert [e.action for e in events] == ["role.withdrawn", "role.granted"]
    assert {e.object for e in events} == {"sybil has Admin"}


def test_tokens_are_revoked_and_refusals_listed(server: Portico) -> None:
    make_user("trent", "User")
    carol, trent = mcp_client(server, "carol", scope=WIDE), mcp_client(server, "trent")
    trent.call("rule")
    last = structured(carol, "recent_refusals", limit=3)
    assert last[0]["actor"] == "trent" and last[0]["object"] == "tool rule"
    assert carol.text("revoke_tokens", user="trent").endswith("of trent revoked.")
    assert trent.call("look").status_code == 401


def test_the_own_account_is_a_resource_too(server: Portico) -> None:
    read = mcp_client(server, "bob").ask("resources/read", uri="portico://me")["result"]
    found = json.loads(read["contents"][0]["text"])
    assert (found["user"], found["roles"]) == ("bob", ["Guest"])


@pytest.fixture
def adm(server: Portico) -> Iterator[McpClient]:
    """adm has Admin for ten minutes, and is neither staff nor superuser."""
    payroll, _new = Role.objects.get_or_create(name="Payroll")
    payroll.scopes.set([Scope.objects.get_or_create(name="Payroll.Read")[0]])
    ends = timezone.now() + timedelta(minutes=10)
    for name in ("adm", "mallory", "paul"):
        make_user(name, "Guest")
    grant("adm", "Admin", expires_at=ends)
    grant("carol", "User")
    grant("paul", "Payroll")
    make_user("stella", "Guest")
    User.objects.filter(username="stella").update(is_staff=True)
    User.objects.filter(username="adm").update(is_staff=False)
    User.objects.get(username="adm").groups.clear()
    yield mcp_client(server, "adm", scope=WIDE)
    RoleAssignment.objects.filter(role=payroll).delete()
    payroll.delete()


def grant(user: str, role: str, **more: Any) -> RoleAssignment:
    who, what = User.objects.get(username=user), Role.objects.get(name=role)
    return RoleAssignment.objects.grant(who, what, **more)[0]


def access() -> list[Any]:
    """All role assignments with granter, reason and end, and the live tokens."""
    assignments = RoleAssignment.objects.order_by("pk")
    columns = ("user", "role", "expires_at", "reason", "granted_by")
    live = IssuedToken.objects.live().order_by("pk")
    return [*assignments.values_list(*columns), *live.values_list("pk")]


def error_text(client: McpClient, tool: str, **arguments: Any) -> str:
    """The text of a tool error; nothing was changed."""
    before = access()
    result = message_in(client.call(tool, **arguments))["result"]
    assert result["isError"] is True, result
    assert access() == before
    return str(result["content"][0]["text"])


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("grant_role", {"user": "adm", "role": "Admin"}, "change your own roles"),
        ("grant_role", {"user": "mallory", "role": "Admin"}, "Only superusers"),
        ("grant_role", {"user": "bob", "role": "User"}, "earlier end date"),
        ("revoke_role", {"user": "carol", "role": "User"}, "roles of a superuser"),
        ("revoke_tokens", {"user": "paul"}, "Ask a superuser"),
    ],
)
@pytest.mark.parametrize("staff", [False, True], ids=["not staff", "role manager"])
def test_the_rules_of_the_admin_apply_to_tools(
    server: Portico, adm: McpClient, tool: str, arguments: Any, told: str, staff: bool
) -> None:
    """Covers users with Admin.Write, with and without access to the admin."""
    actor = User.objects.get(username="adm")
    User.objects.filter(pk=actor.pk).update(is_staff=staff)
    actor.groups.set(Group.objects.filter(name="Role managers") if staff else [])
    for user in ("carol", "stella", "paul"):
        mcp_client(server, user)
    assert told in error_text(adm, tool, **arguments)


def test_adm_grants_and_revokes_within_their_rights(
    server: Portico, adm: McpClient
) -> None:
    """Administrators act within their own rights and dates, at once."""
    bob = mcp_client(server, "bob")
    assert not bob.allowed("look")
    text = adm.text("grant_role", user="bob", role="User", until="5m", reason="help")
    assert text.startswith("bob now has User until 20")
    assignment = RoleAssignment.objects.get(user__username="bob", role__name="User")
    assert assignment.expires_at and assignment.expires_at < timezone.now() + timedelta(
        minutes=6
    )
    assert bob.allowed("look")
    adm.text("revoke_role", user="bob", role="User")
    assert not bob.allowed("look")
    assert adm.text("revoke_tokens", user="bob").endswith("of bob revoked.")
    assert bob.call("look").status_code == 401


def test_a_last_role_of_staff_takes_no_tokens_of_theirs(
    server: Portico, adm: McpClient
) -> None:
    """Of others it does; revoke_tokens refuses staff, too."""
    for name, ends in (("stella", False), ("bob", True)):
        mcp_client(server, name)
        answer = adm.text("revoke_role", user=name, role="Guest")
        assert answer == f"{name} no longer has Guest."
        live = IssuedToken.objects.filter(user__username=name).live()
        assert live.exists() is not ends


@pytest.mark.parametrize("tool", WRITING)
def test_a_writing_tool_needs_its_scope_in_the_token(
    server: Portico, default_users: None, tool: str
) -> None:
    """A client with only its roles may be processing hostile text."""
    carol = mcp_client(server, "carol")
    assert not set(WRITING) & carol.tools() and "list_users" in carol.tools()
    answer = carol.call(tool, user="bob", role="User")
    assert answer.status_code == 403
    assert challenge(answer)["error"] == "insufficient_scope"
    narrow = mcp_client(server, "carol", scope=f"tool:{tool}")
    assert "no user named x" in narrow.text(tool, user="x", role="User")
    assert narrow.tools() == {tool}
