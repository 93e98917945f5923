"""What the API shows and takes. A new field fails here until somebody has decided."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group

from accounts.admin_api.urls import router
from accounts.models import Invitation, OAuthClient, Role, RoleAssignment, Scope
from tests.support.admin_api import (
    Caller,
    columns_of_filters,
    fields_of,
    member_of,
    serializers_of,
)
from tests.support.model_rows import past
from tests.support.users import account

FIELDS = {
    "NoFields": "",
    "ScopeSerializer": "id= name* description roles=",
    "RoleSerializer": "id= name* description scopes networks",
    "AssignmentSerializer": "id= user* role* expires_at? reason granted_by=?"
    " granted_at= expired=",
    "IssuedTokenSerializer": "jti= kind= issued_via= username= client_id= name= scope="
    " state= networks= issued_at= issued_to= expires_at= last_used_at=?"
    " last_used_from= family=",
    "ClaimRuleSerializer": "id claim* value* role*",
    "ProviderSerializer": "id= name* slug* issuer* client_id* client_secret< enabled"
    " sign_up link_by_email roles_last claim_rules",
    "AccessRequestSerializer": "id= user= role= reason= until=? state= asked_at="
    " decided_by=? decided_at=? given_until=? answer=",
    "DeclineSerializer": "answer",
    "ApproveSerializer": "answer given_until?",
    "InvitationSerializer": "id= user= email= state= roles= inviter= sent_at="
    " mailed_to= expires_at= accepted_at=? accepted_from= withdrawn_at=?",
    "IssuedInvitationSerializer": "id= user= email= state= roles= inviter= sent_at="
    " mailed_to= expires_at= accepted_at=? accepted_from= withdrawn_at=? url=",
    "ResendSerializer": "mail",
    "InviteSerializer": "mail username* email roles until?",
    "InviteManySerializer": "invitations*",
    "IssuedManySerializer": "results*",
    "ChannelSerializer": "id= name* kind* mail_to url< host= events* enabled"
    " last_result=",
    "NewChannelSerializer": "id= name* kind* mail_to url< host= events* enabled"
    " last_result= secret",
    "TestedSerializer": "delivered* result*",
    "ClientSerializer": "id= client_id= name registration_source= redirect_uris"
    " token_endpoint_auth_method grant_types client_jwks service_account? networks"
    " max_idle? approved blocked created= last_used_at=?",
    "NewClientSerializer": "id= client_id= name registration_source= redirect_uris"
    " token_endpoint_auth_method grant_types client_jwks service_account? networks"
    " max_idle? approved blocked created= last_used_at=? client_secret",
    "HostSerializer": "id= host* trusted",
    "PersonSerializer": "id= username* email email_set_by_admin first_name last_name"
    " is_active is_service_account is_staff is_superuser groups roles= last_login=?"
    " date_joined= end_own_access< invite< mail<",
    "NewPersonSerializer": "id= username* email email_set_by_admin first_name"
    " last_name is_active is_service_account is_staff is_superuser groups roles="
    " last_login=? date_joined= end_own_access< invite< mail< invitation_url",
    "EventSerializer": "id= at= action= actor= client_id= token_id= address= object="
    " subject= decision= reason= via= outcome= duration_ms=? request_id= changes="
    " arguments=",
    "StreamQuery": "cursor limit",
    "StreamSerializer": "results* cursor* more* missed*",
    "DeliverySerializer": "id= channel= kind= message_id= state= attempts= result="
    " created_at= attempted_at=? next_attempt_at=? delivered_at=?",
}
"""Serializer -> fields: `=` read only, `<` only taken, `*` required, `?` null."""
VIEWS = [view for _prefix, view, _name in router.registry]


def test_each_body_has_its_fields() -> None:
    found = serializers_of("accounts.admin_api.")
    assert {name: fields_of(kind()) for name, kind in found.items()} == FIELDS


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__name__)
def test_a_filter_takes_every_value_of_its_column(view: Any) -> None:
    for name, (longest, column) in columns_of_filters(view).items():
        assert longest >= column, name


@pytest.fixture
def caller(db: None) -> Caller:
    return Caller(member_of("superuser"))


def test_only_roles_of_now_are_shown_in_order(caller: Caller) -> None:
    """Of a person, and of somebody who is invited."""
    zoe = account("zoe", "User", "Guest", "Admin")
    RoleAssignment.objects.filter(role__name="Admin").update(expires_at=past())
    Invitation.objects.issue(zoe, actor="x")
    for path in ("people/?username=zoe", "invitations/?user=zoe"):
        (row,) = caller.get(path).json()["results"]
        assert row["roles"] == ["Guest", "User"], path


def test_names_are_shown_in_order(caller: Caller) -> None:
    """Groups have no order in the database."""
    names = ["Auditors", "Helpdesk", "Role managers"]
    zoe = account("zoe")
    for name in reversed(names):
        Group.objects.filter(name=name).delete()
        zoe.groups.add(Group.objects.create(name=name))
    (row,) = caller.get("people/?username=zoe").json()["results"]
    assert row["groups"] == names
    scope = Scope.objects.create(name="Zeta.Read")
    for name in ("B", "A"):
        Role.objects.create(name=name).scopes.add(scope)
    (row,) = caller.get("scopes/?name=Zeta.Read").json()["results"]
    assert row["roles"] == ["A", "B"]


def test_lists_of_words_keep_every_word(caller: Caller) -> None:
    uris = ["https://a.example/cb", "http://127.0.0.1/cb"]
    body = {"name": "App", "redirect_uris": uris, "networks": "192.0.2.0/24 ::1/128"}
    added = caller.post("clients/", body)
    assert added.status_code == 201, added.content
    assert added.json()["redirect_uris"] == uris
    client = OAuthClient.objects.get(pk=added.json()["id"])
    assert client.redirect_uris == " ".join(uris)
    mail = {"name": "m", "kind": "mail", "events": ["role.ending", "check.failed"]}
    to = ["a@example.com", "b@example.com"]
    channel = caller.post("channels/", {**mail, "mail_to": to}).json()
    assert (channel["mail_to"], channel["events"]) == (to, mail["events"])
