"""Invitations and access requests at /api/v1/."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission

from accounts.models import (
    AccessRequest,
    AuditEvent,
    Invitation,
    Role,
    RoleAssignment,
    User,
)
from tests.support.admin_api import Caller, member_of
from tests.support.users import account

UNTIL = "2099-05-01T12:00:00Z"


@pytest.fixture
def caller(db: None) -> Caller:
    return Caller(member_of("superuser"))


@pytest.fixture
def inviter(db: None) -> Caller:
    """May invite people and give the role User."""
    actor = member_of("Role managers")
    actor.user_permissions.set(Permission.objects.filter(codename="add_user"))
    RoleAssignment.objects.grant(actor, Role.objects.get(name="User"))
    return Caller(actor)


def test_an_invitation_gives_the_link_once(caller: Caller) -> None:
    body = {"username": "zoe", "email": "z@example.com", "roles": ["User"]}
    answer = caller.post("invitations/", {**body, "until": UNTIL})
    assert answer.status_code == 201, answer.content
    link = answer.json()["url"]
    assert "/accounts/invitation/" in link and answer.json()["roles"] == ["User"]
    held = RoleAssignment.objects.get(user__username="zoe")
    assert held.expires_at and held.expires_at.year == 2099
    again = caller.get("invitations/?user=zoe&state=pending").json()["results"]
    assert [row["id"] for row in again] == [answer.json()["id"]]
    assert link.split("/")[-2] not in str(again)


def test_a_repeated_invitation_replaces_the_link(caller: Caller) -> None:
    """A client that lost the response can send it again."""
    first = caller.post("invitations/", {"username": "zoe"}).json()
    second = caller.post("invitations/", {"username": "zoe"}).json()
    assert first["id"] == second["id"] and first["url"] != second["url"]
    assert Invitation.objects.count() == 1


def test_many_are_invited_or_none(caller: Caller) -> None:
    people: list[dict[str, Any]] = [{"username": f"p{n}"} for n in range(3)]
    wrong = [*people, {"username": "bad name!"}, {"usernam": "x"}]
    refused = caller.post("invitations/batch/", {"invitations": wrong})
    fields = [one["field"] for one in refused.json()["errors"]]
    assert refused.status_code == 400 and not Invitation.objects.exists()
    assert fields == ["invitations.3.username", "invitations.4.usernam"]
    twice = caller.post("invitations/batch/", {"invitations": [*people, people[0]]})
    assert twice.status_code == 400 and "twice" in twice.content.decode()
    done = caller.post("invitations/batch/", {"invitations": people})
    assert done.status_code == 201 and len(done.json()["results"]) == 3
    assert len({one["url"] for one in done.json()["results"]}) == 3


def test_the_link_is_mailed_on_request(caller: Caller, settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
    body = {"username": "zoe", "email": "z@example.com", "mail": True}
    refused = caller.post("invitations/", body)
    assert refused.status_code == 400 and "EMAIL_HOST" in refused.json()["detail"]
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    without = caller.post("invitations/", {"username": "eve", "mail": True})
    assert without.status_code == 400 and "address" in without.json()["detail"]
    answer = caller.post("invitations/", body)
    assert answer.json()["mailed_to"] == "z@example.com"
    assert not User.objects.filter(username="eve").exists()


def test_the_limits_of_delegation_hold(inviter: Caller) -> None:
    given = inviter.post("invitations/", {"username": "zoe", "roles": ["User"]})
    assert given.status_code == 201, given.content
    beyond = inviter.post("invitations/", {"username": "eve", "roles": ["Admin"]})
    assert beyond.status_code == 403 and "superuser" in beyond.json()["detail"]
    assert not User.objects.filter(username="eve").exists()
    inviter.user.user_permissions.clear()
    refused = Caller(inviter.user, inviter.raw).post("invitations/", {"username": "x"})
    assert refused.status_code in (403, 404)


def test_unknown_roles_and_past_ends_are_named(caller: Caller) -> None:
    for wrong in ({"roles": ["No such"]}, {"until": "2001-01-01T00:00:00Z"}):
        answer = caller.post("invitations/", {"username": "zoe", **wrong})
        assert answer.status_code == 400
        assert [one["field"] for one in answer.json()["errors"]] == [*wrong]
    assert not User.objects.filter(username="zoe").exists()


def test_an_invitation_is_resent_and_withdrawn(caller: Caller) -> None:
    made = caller.post("invitations/", {"username": "zoe"}).json()
    path = f"invitations/{made['id']}"
    renewed = caller.post(f"{path}/resend/").json()
    assert renewed["url"] != made["url"]
    for _again in range(2):
        ended = caller.post(f"{path}/withdraw/")
        assert ended.status_code == 200 and ended.json()["state"] == "withdrawn"
    assert not User.objects.get(username="zoe").is_active
    assert AuditEvent.objects.filter(action="invitation.withdrawn").count() == 1
    assert caller.post(f"{path}/resend/").status_code == 403


def test_a_new_person_can_be_invited(caller: Caller) -> None:
    answer = caller.post("people/", {"username": "zoe", "invite": True})
    assert answer.status_code == 201, answer.content
    assert "/accounts/invitation/" in answer.json()["invitation_url"]
    path = f"people/{answer.json()['id']}/"
    assert "invitation_url" not in caller.get(path).json()
    assert caller.patch(path, {"invite": True}).status_code == 400
    plain = caller.post("people/", {"username": "eve"}).json()
    assert "invitation_url" not in plain and Invitation.objects.count() == 1


def test_the_link_of_a_new_person_is_mailed_on_request(
    caller: Caller, mailoutbox: list[Any]
) -> None:
    wanted = {"username": "zoe", "email": "zoe@example.org", "mail": True}
    for wrong in (
        {**wanted, "invite": False},
        {"username": "zoe", "invite": True, "mail": True},
    ):
        assert caller.post("people/", wrong).status_code == 400
    answer = caller.post("people/", {**wanted, "invite": True})
    assert answer.status_code == 201, answer.content
    (mail,) = mailoutbox
    assert mail.to == ["zoe@example.org"]
    assert answer.json()["invitation_url"] in mail.body


def test_without_a_mail_server_no_link_is_mailed(caller: Caller, settings: Any) -> None:
    """The field is named, and nobody is added."""
    settings.EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
    invited = {"username": "ann", "email": "ann@example.org"}
    key = caller.post("invitations/", invited).json()["id"]
    zoe = {"username": "zoe", "email": "zoe@example.org", "mail": True}
    for path, body in (
        ("people/", {**zoe, "invite": True}),
        (f"invitations/{key}/resend/", {"mail": True}),
    ):
        answer = caller.post(path, body)
        assert answer.status_code == 400, path
        (error,) = answer.json()["errors"]
        assert error["field"] == "mail" and "EMAIL_HOST" in error["detail"]
    assert not User.objects.filter(username="zoe").exists()


def test_an_unknown_field_is_refused(caller: Caller) -> None:
    """A typo must not become a role without an end."""
    account("bob")
    body = {"user": "bob", "role": "User", "expire_at": UNTIL}
    answer = caller.post("assignments/", body)
    assert answer.status_code == 400 and not RoleAssignment.objects.exists()
    assert "there are: expires_at, reason, role, user" in answer.content.decode()
    read_only = caller.post("assignments/", {**body, "id": 5})
    assert "read only" in read_only.content.decode()
    bob = User.objects.get(username="bob")
    unused = caller.post(f"people/{bob.pk}/end-access/", {"reason": "left"})
    assert unused.status_code == 400


def request_of(name: str, **fields: Any) -> AccessRequest:
    role = Role.objects.get(name="User")
    return AccessRequest.objects.all().ask(account(name), role, reason="x", **fields)


def test_requests_are_decided(caller: Caller) -> None:
    path = f"access-requests/{request_of('bob').pk}/"
    approved = caller.post(f"{path}approve/", {"given_until": UNTIL, "answer": "ok"})
    assert approved.status_code == 200, approved.content
    assert approved.json()["state"] == "approved"
    assert approved.json()["given_until"].startswith("2099")
    assert RoleAssignment.objects.get(user__username="bob").expires_at
    late = caller.post(f"{path}decline/")
    assert late.status_code == 409 and "approved" in late.json()["detail"]
    path = f"access-requests/{request_of('eve').pk}/"
    declined = caller.post(f"{path}decline/", {"answer": "no"}).json()
    assert (declined["state"], declined["answer"]) == ("declined", "no")
    actions = set(AuditEvent.objects.values_list("action", flat=True))
    assert {"access.approved", "role.granted", "access.declined"} <= actions


def test_a_request_needs_the_right_to_grant(db: None) -> None:
    caller = Caller(member_of("Role managers"))
    path = f"access-requests/{request_of('bob').pk}/approve/"
    refused = caller.post(path, {})
    assert refused.status_code in (400, 403) and "You do not have" in str(
        refused.json()["detail"]
    )
    assert AccessRequest.objects.get().state == "open"
