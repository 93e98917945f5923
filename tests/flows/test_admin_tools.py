"""The service run from an MCP client: Admin.Write's own tools."""

from __future__ import annotations

import json
from typing import Any

import pytest

from accounts.models import AuditEvent, RoleAssignment
from tests.flows.server import Portico
from tests.flows.wire import Wire, message_in, wire
from tests.people import person

pytestmark = pytest.mark.usefixtures("cast")


def structured(client: Wire, tool: str, **arguments: Any) -> Any:
    """What a tool answers, as data."""
    return message_in(client.call(tool, **arguments))["result"]["structuredContent"][
        "result"
    ]


def test_users_are_listed_with_their_roles(server: Portico) -> None:
    """issue: list users."""
    carol = wire(server, "carol")
    found = structured(carol, "list_users", contains="ali")
    assert {"user": "alice", "active": True, "roles": ["User"]} in found
    assert len(structured(carol, "list_users", limit=1)) == 1


def test_a_role_is_granted_and_revoked_and_rules_at_once(server: Portico) -> None:
    """issue: grant and revoke a role; the next message of an open client sees it."""
    person("sybil", "User")
    carol, sybil = wire(server, "carol"), wire(server, "sybil")
    assert not sybil.allowed("rule")
    told = carol.text("grant_role", user="sybil", role="Admin", reason="stand-in")
    assert told == "sybil now holds Admin." and sybil.allowed("rule")
    held = RoleAssignment.objects.get(user__username="sybil", role__name="Admin")
    assert held.granted_by is not None and held.granted_by.username == "carol"
    carol.text("revoke_role", user="sybil", role="Admin")
    assert not sybil.allowed("rule")
    events = AuditEvent.objects.filter(action__startswith="role.", actor="carol")[:2]
    assert [e.action for e in events] == ["role.withdrawn", "role.granted"]


def test_tokens_are_revoked_and_refusals_listed(server: Portico) -> None:
    """issue: revoke a user's tokens, recent refusals."""
    person("trent", "User")
    carol, trent = wire(server, "carol"), wire(server, "trent")
    trent.call("rule")
    last = structured(carol, "recent_refusals", limit=3)
    assert last[0]["actor"] == "trent" and last[0]["object"] == "tool rule"
    assert carol.text("revoke_tokens", user="trent").endswith("of trent revoked.")
    assert trent.call("look").status_code == 401


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("grant_role", {"user": "nobody", "role": "User"}, "no user named nobody"),
        ("grant_role", {"user": "alice", "role": "King"}, "Admin, Guest, User"),
        ("revoke_role", {"user": "alice", "role": "Admin"}, "does not hold"),
        ("revoke_tokens", {"user": "nobody"}, "no user named nobody"),
    ],
)
def test_mistakes_are_explained(
    server: Portico, tool: str, arguments: dict[str, str], told: str
) -> None:
    """ours: names what is wrong and what there is."""
    assert told in wire(server, "carol").text(tool, **arguments)


def test_me_is_a_resource_too(server: Portico) -> None:
    """issue: portico://me."""
    read = wire(server, "bob").ask("resources/read", uri="portico://me")["result"]
    found = json.loads(read["contents"][0]["text"])
    assert (found["user"], found["roles"]) == ("bob", ["Guest"])
