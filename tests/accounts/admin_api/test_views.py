"""Rights at /api/v1/: each list and each change, for each staff group."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.models import (
    AccessRequest,
    AuditEvent,
    Delivery,
    DocumentHost,
    Invitation,
    NotificationChannel,
    OAuthClient,
    Role,
    RoleAssignment,
    SignInProvider,
    User,
)
from accounts.tokens.issue import issue_tokens
from mcp_bridge.models import Primitive, UpstreamServer
from tests.support.admin_api import Caller, api_token, member_of
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
    "access/": {"Auditors", "Role managers"},
    "invitations/": {"Auditors"},
    "access-requests/": {"Auditors", "Role managers"},
    "scopes/": {"Auditors", "Role managers"},
    "document-hosts/": {"Auditors"},
    "providers/": {"Auditors"},
    "channels/": {"Auditors"},
    "deliveries/": {"Auditors"},
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
    ("POST", "invitations/", {"username": "invited"}, set(), 201),
    ("POST", "invitations/{invitation}/resend/", {}, set(), 200),
    ("POST", "invitations/{invitation}/withdraw/", {}, set(), 200),
    ("POST", "access-requests/{request}/approve/", {}, {"Role managers"}, 200),
    ("POST", "access-requests/{request}/decline/", {}, {"Role managers"}, 200),
    ("POST", "scopes/", {"name": "New.Read"}, set(), 201),
    ("PATCH", "document-hosts/{host}/", {"trusted": False}, set(), 200),
    ("PATCH", "providers/{provider}/", {"enabled": False}, set(), 200),
    ("PATCH", "channels/{channel}/", {"enabled": False}, set(), 200),
    ("POST", "deliveries/{delivery}/send-again/", {}, set(), 200),
]
"""Method, path, body, the groups that may do it, and the status for those."""


@pytest.fixture(scope="module")
def keys(module_transaction: None) -> dict[str, Any]:
    """The key of one row of each kind."""
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
    settings_rows = other_rows(bob)
    rows = {"bob": bob, "role": role, "held": held, "client": client}
    rows |= {"tool": tool, "off": off, "upstream": upstream}
    rows |= settings_rows
    return {**{name: row.pk for name, row in rows.items()}, "jti": pair.row.jti}


def other_rows(bob: User) -> dict[str, Any]:
    role = Role.objects.get(name="Guest")
    new = User.objects.create(username="new-here", password="!x")
    channel = NotificationChannel.objects.create(
        name="siem", kind="webhook", host="hooks.example.com", events=["role.ending"]
    )
    return {
        "invitation": Invitation.objects.issue(new, actor="somebody")[0],
        "request": AccessRequest.objects.all().ask(bob, role, reason="x"),
        "host": DocumentHost.objects.create(host="claude.ai"),
        "provider": SignInProvider.objects.create(
            slug="acme", name="Acme", issuer="https://id.example.com", client_id="p"
        ),
        "channel": channel,
        "delivery": Delivery.objects.create(channel=channel, kind="role.ending"),
    }


@pytest.fixture(scope="module")
def tokens(module_transaction: None) -> dict[str, str]:
    """Group -> a member's token; the member has two roles."""
    return {group: api_token(with_roles(member_of(group))) for group in STAFF}


def with_roles(actor: User) -> User:
    for role in ("User", "Guest"):
        RoleAssignment.objects.grant(actor, Role.objects.get(name=role))
    return actor


@pytest.fixture
def caller(tokens: dict[str, str], group: str, db: None) -> Caller:
    user = User.objects.get(username=group.replace(" ", "-").lower())
    return Caller(user, tokens[group])


@pytest.mark.parametrize("group", STAFF)
def test_each_group_views_what_the_admin_shows_it(
    caller: Caller, keys: dict[str, Any], group: str
) -> None:
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
    caller: Caller,
    keys: dict[str, Any],
    group: str,
    method: str,
    path: str,
    body: Any,
    groups: set[str],
    status: int,
) -> None:
    """404 for what it may not view, 403 for the rest; a change has an event."""
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
        assert events and {event.actor_id for event in events} == {caller.user.pk}
