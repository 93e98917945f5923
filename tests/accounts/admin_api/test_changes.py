"""What changes at /api/v1/ do: forms of the admin, secrets, ETags."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.contrib.sessions.models import Session

from accounts.models import (
    AuditEvent,
    IssuedToken,
    OAuthClient,
    Role,
    RoleAssignment,
    User,
)
from accounts.tokens.issue import issue_tokens
from tests.support.admin_api import Caller, member_of
from tests.support.users import account, browser_of


@pytest.fixture
def caller(db: None) -> Caller:
    return Caller(member_of("superuser"))


def changes_of(action: str) -> Any:
    return AuditEvent.objects.filter(action=action)[0].changes


def test_a_person_is_created_without_a_password(caller: Caller) -> None:
    body = {"username": "zoe", "email": "Z@Example.com", "first_name": "Zoe"}
    answer = caller.post("people/", {**body, "groups": ["Helpdesk"], "is_staff": True})
    assert answer.status_code == 201, answer.content
    zoe = User.objects.get(username="zoe")
    assert not zoe.has_usable_password() and zoe.email == "z@example.com"
    assert answer.json()["groups"] == ["Helpdesk"] and zoe.is_staff
    assert caller.get(f"people/{zoe.pk}/").json() == answer.json()
    actions = AuditEvent.objects.filter(subject=f"user:{zoe.pk}")
    assert {e.action for e in actions} == {"user.added", "user.changed"}


def test_nothing_is_left_of_a_person_whose_rest_is_refused(caller: Caller) -> None:
    answer = caller.post("people/", {"username": "zoe", "groups": ["No such"]})
    assert answer.status_code == 400
    assert not User.objects.filter(username="zoe").exists()
    assert not AuditEvent.objects.filter(action="user.added").exists()


def test_a_deactivated_person_loses_all_tokens(caller: Caller) -> None:
    bob = account("bob", "User")
    issue_tokens(bob, issued_via="password")
    assert caller.patch(f"people/{bob.pk}/", {"is_active": False}).status_code == 200
    assert not IssuedToken.objects.filter(user=bob).live().exists()
    assert changes_of("user.changed") == {"is_active": [True, False]}
    assert User.objects.get(pk=bob.pk).password == bob.password


def test_ending_ones_own_administration_needs_a_second_word(caller: Caller) -> None:
    member_of("superuser", "other")
    path = f"people/{caller.user.pk}/"
    refused = caller.patch(path, {"is_active": False})
    assert refused.status_code == 400 and "end my own" in refused.json()["detail"]
    body = {"is_active": False, "end_own_access": True}
    caller.patch(path, body)
    assert not User.objects.get(pk=caller.user.pk).is_active
    assert caller.get("people/").status_code == 401


def test_ending_ones_own_access_ends_every_browser_session(caller: Caller) -> None:
    """Also that of the cookie beside the token: no page of the admin asked."""
    browser = browser_of(caller.user)
    assert Session.objects.exists()
    path = f"/api/v1/people/{caller.user.pk}/end-access/"
    sent = {"authorization": f"Bearer {caller.raw}"}
    answer = browser.post(path, {}, content_type="application/json", headers=sent)
    assert answer.status_code == 200, answer.content
    assert not Session.objects.exists()


def test_others_set_no_administrative_column(db: None) -> None:
    """Only superusers grant rights in the admin itself."""
    actor = member_of("Helpdesk")
    codes = ("change_user", "add_user")
    actor.user_permissions.set(Permission.objects.filter(codename__in=codes))
    caller, bob = Caller(actor), account("bob")
    bodies: list[dict[str, Any]] = [
        {"is_staff": True},
        {"is_superuser": True},
        {"groups": []},
    ]
    for body in bodies:
        assert caller.patch(f"people/{bob.pk}/", body).status_code == 403
    assert caller.patch(f"people/{bob.pk}/", {"last_name": "B"}).status_code == 200
    root = member_of("superuser")
    refused = caller.patch(f"people/{root.pk}/", {"last_name": "B"})
    assert refused.status_code == 403 and "superuser" in refused.json()["detail"]


def test_a_role_is_given_extended_and_ended(caller: Caller) -> None:
    bob = account("bob")
    body = {"user": "bob", "role": "User", "reason": "stand-in"}
    given = caller.post("assignments/", body)
    assert given.status_code == 201 and given.json()["granted_by"] == "superuser"
    path = f"assignments/{given.json()['id']}/"
    until = "2099-05-01T12:00:00Z"
    extended = caller.patch(path, {"expires_at": until})
    assert extended.json()["expires_at"].startswith("2099-05-01T")
    assert extended.json()["reason"] == "stand-in"
    issue_tokens(bob, issued_via="password")
    ended = caller.post(f"{path}end/")
    assert ended.json()["expired"] is True
    assert not IssuedToken.objects.filter(user=bob).live().exists()
    actions = {"role.granted", "role.extended", "role.ended"}
    assert set(AuditEvent.objects.values_list("action", flat=True)) >= actions


def test_an_assignment_keeps_its_user_and_role(caller: Caller) -> None:
    RoleAssignment.objects.grant(account("bob"), Role.objects.get(name="User"))
    held = RoleAssignment.objects.get()
    for body in ({"user": "superuser"}, {"role": "Admin"}):
        assert caller.patch(f"assignments/{held.pk}/", body).status_code == 403
    again = caller.post("assignments/", {"user": "bob", "role": "User"})
    assert again.status_code == 409 and "already" in again.json()["detail"]


def test_an_event_has_only_what_changed(caller: Caller) -> None:
    role = caller.post("roles/", {"name": "R", "scopes": ["Guest.Read"]}).json()
    both = ["Guest.Read", "User.Read"]
    answer = caller.patch(f"roles/{role['id']}/", {"scopes": both})
    assert answer.json()["scopes"] == both
    assert changes_of("role.changed") == {"scopes": [["Guest.Read"], both]}
    before = AuditEvent.objects.count()
    caller.patch(f"roles/{role['id']}/", {"scopes": both})
    assert AuditEvent.objects.count() == before


def test_an_event_names_the_token_that_was_used(caller: Caller) -> None:
    """The history of a token has what was changed with it."""
    mine = IssuedToken.objects.get(user=caller.user)
    caller.post("roles/", {"name": "R"})
    event = AuditEvent.objects.get(action="role.added")
    assert event.token_id == mine.jti and event.address == "127.0.0.1"
    issue_tokens(bob := account("bob"), issued_via="password")
    caller.post(f"people/{bob.pk}/end-access/")
    ended = AuditEvent.objects.filter(action="token.revoked")
    theirs = IssuedToken.objects.filter(user=bob)
    assert {e.token_id for e in ended} == {row.jti for row in theirs}


def test_a_role_in_use_is_not_deleted(caller: Caller) -> None:
    role = Role.objects.get(name="User")
    RoleAssignment.objects.grant(account("bob"), role)
    answer = caller.delete(f"roles/{role.pk}/")
    assert answer.status_code == 409 and "need it" in answer.json()["detail"]
    assert not AuditEvent.objects.filter(action="role.deleted").exists()


def test_a_change_can_depend_on_what_was_read(caller: Caller) -> None:
    """RFC 9110 13.1.1: If-Match."""
    role = Role.objects.create(name="R")
    path = f"roles/{role.pk}/"
    read = caller.get(path)
    body = {"description": "one"}
    changed = caller.patch(path, body, **{"if-match": read["ETag"]})
    assert changed.status_code == 200 and changed["ETag"] != read["ETag"]
    late = caller.patch(path, {"description": "two"}, **{"if-match": read["ETag"]})
    assert late.status_code == 412 and "has changed" in late.json()["detail"]
    assert caller.get(path).json()["description"] == "one"
    assert caller.patch(path, body, **{"if-match": "*"}).status_code == 200


def test_a_client_secret_is_in_one_response(caller: Caller) -> None:
    body = {
        "name": "Robot",
        "redirect_uris": ["https://a.example/cb"],
        "token_endpoint_auth_method": "client_secret_basic",
    }
    added = caller.post("clients/", body)
    assert added.status_code == 201, added.content
    first, key = added.json()["client_secret"], added.json()["id"]
    assert len(first) > 40 and added["Cache-Control"] == "no-store"
    second = caller.post(f"clients/{key}/rotate-secret/").json()["client_secret"]
    shown = json.dumps(caller.get("clients/").json())
    events = str(list(AuditEvent.objects.values()))
    stored = OAuthClient.objects.get(pk=key).client_secret
    for raw in (first, second):
        assert raw not in shown and raw not in events and raw not in stored
    assert '"client_secret"' not in shown and first != second


def test_a_public_client_has_no_secret(caller: Caller) -> None:
    body = {"name": "App", "redirect_uris": ["https://a.example/cb"]}
    added = caller.post("clients/", {**body, "token_endpoint_auth_method": "none"})
    assert added.status_code == 201 and "client_secret" not in added.json()
    path = f"clients/{added.json()['id']}/rotate-secret/"
    assert caller.post(path).status_code == 403


def test_a_client_keeps_what_a_change_leaves_out(caller: Caller) -> None:
    body = {"name": "App", "redirect_uris": ["https://a.example/cb"]}
    added = caller.post("clients/", {**body, "networks": "192.0.2.0/24"}).json()
    changed = caller.patch(f"clients/{added['id']}/", {"name": "New"}).json()
    assert changed["redirect_uris"] == body["redirect_uris"]
    assert changed["networks"] == "192.0.2.0/24"
    assert changes_of("client.changed") == {"name": ["App", "New"]}


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


def test_a_blocked_client_loses_its_tokens(caller: Caller) -> None:
    client = OAuthClient.objects.create(
        client_id="app",
        name="app",
        client_type="public",
        redirect_uris="https://app.example/cb",
        grant_types=["authorization_code"],
        token_endpoint_auth_method="none",
    )
    issue_tokens(account("bob", "User"), issued_via="password", client_id="app")
    path, body = f"clients/{client.pk}/", {"blocked": True, "name": "spam"}
    answer = caller.patch(path, body)
    assert answer.status_code == 200, answer.content
    shown = answer.json()
    assert shown["blocked"] and shown["name"] == "spam"
    assert not IssuedToken.objects.filter(client_id="app").live().exists()
    assert not caller.patch(path, {"blocked": False}).json()["blocked"]
