"""Rights at /api/v1/: each list and each change, for each staff group."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.models import AuditEvent, OAuthClient, Role, RoleAssignment, User
from accounts.tokens.issue import issue_tokens
from mcp_bridge.models import Primitive, UpstreamServer
from tests.support.admin_api import Caller, member_of
from tests.support.users import account

LISTS = {
    "people/": {"Auditors", "Helpdesk", "Role managers"},
    "roles/": {"Auditors", "Helpdesk", "Role managers"},
    "assignments/": {"Auditors", "Helpdesk", "Role managers"},
    "clients/": {"Auditors", "Helpdesk"},
    "tokens/": {"Auditors", "Helpdesk"},
    "events/": {"Auditors", "Helpdesk"},
    "tools/": {"Auditors", "Role managers"},
    "upstreams/": {"Auditors"},
}
"""List -> the groups that may view it; a superuser may view all."""
STAFF = ("Auditors", "Helpdesk", "Role managers", "superuser", "nobody")

CHANGES: list[tuple[str, str, Any, set[str], int]] = [
    ("POST", "people/", {"username": "new"}, set(), 201),
    ("PATCH", "people/{bob}/", {"first_name": "B"}, set(), 200),
    ("PATCH", "people/{bob}/", {"is_active": False}, set(), 200),
    ("POST", "people/{bob}/deactivate/", {}, set(), 200),
    ("POST", "people/{bob}/end-access/", {}, {"Helpdesk"}, 200),
    ("POST", "people/{bob}/unlock/", {}, {"Helpdesk"}, 200),
    ("POST", "roles/", {"name": "New", "scopes": ["Guest.Read"]}, set(), 201),
    ("PATCH", "roles/{role}/", {"scopes": ["Guest.Read"]}, set(), 200),
    ("DELETE", "roles/{role}/", None, set(), 204),
    (
        "POST",
        "assignments/",
        {"user": "bob", "role": "Guest"},
        {"Role managers"},
        201,
    ),
    ("PATCH", "assignments/{held}/", {"reason": "y"}, {"Role managers"}, 200),
    ("POST", "assignments/{held}/end/", {}, {"Role managers"}, 200),
    ("DELETE", "assignments/{held}/", None, {"Role managers"}, 204),
    (
        "POST",
        "clients/",
        {"name": "App", "redirect_uris": ["https://a.example/cb"]},
        set(),
        201,
    ),
    ("PATCH", "clients/{client}/", {"blocked": True}, set(), 200),
    ("POST", "clients/{client}/rotate-secret/", {}, set(), 200),
    ("POST", "clients/{client}/revoke-tokens/", {}, set(), 200),
    ("DELETE", "clients/{client}/", None, set(), 204),
    ("POST", "tokens/{jti}/revoke/", {}, {"Helpdesk"}, 200),
    ("POST", "tokens/{jti}/revoke-family/", {}, {"Helpdesk"}, 200),
    ("PATCH", "tools/{tool}/", {"sensitive": True}, set(), 200),
    ("POST", "tools/{tool}/disable/", {}, set(), 200),
    ("POST", "tools/{off}/enable/", {}, set(), 200),
    ("PATCH", "upstreams/{upstream}/", {"title": "T"}, set(), 200),
    ("POST", "upstreams/{upstream}/disable/", {}, set(), 200),
    ("DELETE", "upstreams/{upstream}/", None, set(), 204),
]
"""Method, path, body, the groups that may do it, and the status for those."""


def scene() -> dict[str, Any]:
    """One row of each kind, and its key."""
    bob = account("bob")
    role = Role.objects.create(name="Unused")
    user_role = Role.objects.get(name="User")
    held, _new = RoleAssignment.objects.grant(bob, user_role)
    client = OAuthClient.objects.create(
        name="App",
        client_id="app",
        client_type="confidential",
        client_secret="x",
        redirect_uris="https://a.example/cb",
        grant_types=["authorization_code"],
        token_endpoint_auth_method="client_secret_basic",
    )
    pair = issue_tokens(bob, issued_via="password", client_id="app")
    tool = Primitive.objects.create(kind="tool", name="one")
    off = Primitive.objects.create(kind="tool", name="off", enabled=False)
    upstream = UpstreamServer.objects.create(
        name="up", url="https://mcp.example/mcp", prefix="up"
    )
    rows = {"bob": bob, "role": role, "held": held, "client": client}
    rows |= {"tool": tool, "off": off, "upstream": upstream}
    return {**{name: row.pk for name, row in rows.items()}, "jti": pair.row.jti}


@pytest.mark.parametrize("group", STAFF)
def test_each_group_views_what_the_admin_shows_it(db: None, group: str) -> None:
    caller, keys = Caller(member_of(group)), scene()
    for path, viewers in LISTS.items():
        seen = caller.get(path)
        expected = 200 if group in viewers or group == "superuser" else 404
        assert seen.status_code == expected, (path, seen.content)
        if expected == 404:
            assert seen["Content-Type"] == "application/problem+json"
            assert "permission" in seen.json()["detail"]
    for path in {path for _m, path, *_ in CHANGES if path.count("/") == 2}:
        row = caller.get(path.format(**keys))
        kind = path.split("/")[0] + "/"
        viewable = group in LISTS[kind] or group == "superuser"
        assert row.status_code == (200 if viewable else 404), path


@pytest.mark.parametrize(("method", "path", "body", "groups", "status"), CHANGES)
@pytest.mark.parametrize("group", STAFF)
def test_each_group_changes_what_the_admin_lets_it(
    db: None,
    group: str,
    method: str,
    path: str,
    body: Any,
    groups: set[str],
    status: int,
) -> None:
    """404 for what it may not view, 403 for the rest; a change has an event."""
    actor, keys = member_of(group), scene()
    for role in ("User", "Guest"):
        RoleAssignment.objects.grant(actor, Role.objects.get(name=role))
    caller = Caller(actor)
    before = AuditEvent.objects.count()
    answer = caller.send(method, path.format(**keys), body)
    if group in groups or group == "superuser":
        expected = status
    else:
        expected = 403 if group in LISTS[path.split("/")[0] + "/"] else 404
    assert answer.status_code == expected, answer.content
    events = AuditEvent.objects.order_by("-id")[: AuditEvent.objects.count() - before]
    if expected >= 400:
        assert answer["Content-Type"] == "application/problem+json"
        assert answer.json()["detail"] and not events
    elif not path.endswith("unlock/"):
        assert events and {event.actor_id for event in events} == {actor.pk}


def test_nobody_gives_or_takes_what_they_lack(db: None) -> None:
    """Delegation: own roles, administrative scopes, people with more rights."""
    actor, other = member_of("Role managers"), member_of("superuser", "root")
    caller = Caller(actor)
    for user, role in ((actor, "Guest"), (account("bob"), "Admin"), (other, "Guest")):
        body = {"user": user.username, "role": role}
        refused = caller.post("assignments/", body)
        assert refused.status_code == 403, refused.content
    assert not RoleAssignment.objects.exists()
    text = caller.post("assignments/", {"user": "bob", "role": "User"}).json()["detail"]
    assert text.startswith("You do not have")


def test_a_superuser_keeps_the_last_superuser(db: None) -> None:
    actor = member_of("superuser")
    caller = Caller(actor)
    for path, body in (
        (f"people/{actor.pk}/", {"is_active": False}),
        (f"people/{actor.pk}/", {"is_superuser": False}),
        (f"people/{actor.pk}/deactivate/", None),
    ):
        answer = caller.patch(path, body) if body else caller.post(path)
        assert 400 <= answer.status_code < 500, path
        assert "last active superuser" in answer.json()["detail"]
    assert User.objects.get(pk=actor.pk).is_active
