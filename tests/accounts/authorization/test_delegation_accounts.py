"""Which users have more rights than others, and the rules that depend on it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.authorization.delegation import (
    REVOKE_PERMISSION,
    UNLOCK_PERMISSION,
    has_admin_permission,
    may_enter_admin,
    more_privileged_users,
    objection_to_client,
    objection_to_copy,
    objection_to_host,
    objection_to_importing,
    objection_to_retiring,
    objection_to_revoking,
    objection_to_tokens_of,
    outranks,
    protected_users,
    roles_exceeding,
)
from accounts.models import (
    DocumentCopy,
    DocumentHost,
    IssuedToken,
    OAuthClient,
    RoleAssignment,
    SigningKey,
    User,
)
from accounts.tokens.issue import issue_tokens
from tests.support.accounts import HOUR, role_of
from tests.support.model_rows import client_row
from tests.support.users import account

pytestmark = pytest.mark.django_db
PERMISSIONS = (REVOKE_PERMISSION, UNLOCK_PERMISSION)
EVERYBODY = {
    "nobody": (),
    "guest": ("Guest",),
    "user": ("User",),
    "payroll": ("Payroll",),
    "office": ("Office",),
    "former": ("Admin", "Payroll"),
    "admin": ("Admin",),
    "staff": (),
    "superuser": (),
}
"""Target -> its roles. Those of `former` have expired."""
ABOVE_ALL = {"staff", "superuser"}


@pytest.fixture(scope="module", autouse=True)
def everybody(module_transaction: None) -> None:
    role_of("Payroll", "Payroll.Read")
    role_of("Office", "User.Read", networks="10.0.0.0/8")
    role_of("Room", "User.Read", networks="10.1.0.0/16")
    role_of("Empty")
    for name, roles in EVERYBODY.items():
        account(name, *roles)
    User.objects.filter(username="staff").update(is_staff=True)
    User.objects.filter(username="superuser").update(is_superuser=True)
    ended = timezone.now() - timedelta(seconds=1)
    RoleAssignment.objects.filter(user__username="former").update(expires_at=ended)


def actor_with(*roles: str, can: tuple[str, ...] = (), **columns: Any) -> User:
    """A staff member with these roles and Django permissions."""
    actor = account("actor", *roles, **{"is_staff": True, **columns})
    names = [permission.partition(".")[2] for permission in can]
    actor.user_permissions.set(Permission.objects.filter(codename__in=names))
    return actor


def target(name: str) -> User:
    found: User = User.objects.get(username=name)
    return found


def names(users: Any) -> set[str]:
    return {user.username for user in users}


ABOVE = {
    (): {"guest", "user", "payroll", "office", "admin"},
    ("Empty",): {"guest", "user", "payroll", "office", "admin"},
    ("Guest",): {"user", "payroll", "office", "admin"},
    ("User",): {"payroll", "admin"},
    ("Payroll",): {"guest", "user", "office", "admin"},
    ("Office",): {"guest", "user", "payroll", "admin"},
    ("Room",): {"guest", "user", "payroll", "office", "admin"},
    ("Guest", "Office"): {"user", "payroll", "admin"},
    ("Admin",): {"payroll"},
    ("Admin", "Payroll"): set(),
}
"""Roles of an actor -> the targets above them, beside ABOVE_ALL."""


@pytest.mark.parametrize("is_staff", [True, False])
@pytest.mark.parametrize("mine", ABOVE)
def test_people_with_a_right_that_the_actor_lacks_are_above(
    mine: tuple[str, ...], is_staff: bool
) -> None:
    """Other staff and superusers always are; nobody is above themselves."""
    actor = actor_with(*mine, is_staff=is_staff)
    above = ABOVE[mine] | ABOVE_ALL
    assert names(more_privileged_users(actor)) == above


@pytest.mark.parametrize("name", EVERYBODY)
def test_people_outrank_the_actor_if_they_are_above(name: str) -> None:
    actor = actor_with("Guest")
    assert outranks(actor, target(name)) is (name in ABOVE[("Guest",)] | ABOVE_ALL)
    assert not outranks(actor, actor)


def test_nobody_is_above_a_superuser() -> None:
    top = target("superuser")
    assert not more_privileged_users(top).exists()
    assert not protected_users(top).exists()
    assert not outranks(top, target("staff"))


def test_an_expired_role_of_the_actor_does_not_count() -> None:
    actor = actor_with()
    ended = timezone.now() - HOUR
    for role in ("Admin", "Payroll"):
        RoleAssignment.objects.grant(
            actor, role_of(f"Ended {role}", "X"), expires_at=ended
        )
    assert names(more_privileged_users(actor)) == ABOVE[()] | ABOVE_ALL


EXCEEDING = {
    (): {"Admin", "User", "Guest", "Payroll", "Office", "Room"},
    ("Guest",): {"Admin", "User", "Payroll", "Office", "Room"},
    ("Office",): {"Admin", "User", "Guest", "Payroll"},
    ("Room",): {"Admin", "User", "Guest", "Payroll", "Office"},
    ("User",): {"Admin", "Payroll"},
    ("Admin", "Payroll"): set(),
}


@pytest.mark.parametrize("mine", EXCEEDING)
def test_a_role_exceeds_by_a_scope_or_by_a_network(mine: tuple[str, ...]) -> None:
    found = roles_exceeding(actor_with(*mine))
    assert {role.name for role in found} == EXCEEDING[mine]


def test_more_roles_take_no_more_queries(django_assert_num_queries: Any) -> None:
    """Scopes and networks are read for all roles together."""
    actor = actor_with("Guest")
    with CaptureQueriesContext(connection) as before:
        roles_exceeding(actor)
    for number in range(5):
        role_of(f"more {number}", "User.Read")
    with django_assert_num_queries(len(before)):
        roles_exceeding(actor)


ADMINISTER = {"admin", *ABOVE_ALL}


@pytest.mark.parametrize("job", PERMISSIONS)
def test_the_helpdesk_serves_everybody_who_does_not_administer(job: str) -> None:
    actor = actor_with(can=(job,))
    assert names(protected_users(actor, job)) == ADMINISTER
    (other,) = set(PERMISSIONS) - {job}
    assert names(protected_users(actor, other)) == ABOVE[()] | ABOVE_ALL


def test_revoking_is_the_usual_job() -> None:
    assert names(protected_users(actor_with(can=(REVOKE_PERMISSION,)))) == ADMINISTER


def test_a_helper_who_holds_admin_is_not_protected_from_themselves() -> None:
    actor = actor_with("Admin", can=(REVOKE_PERMISSION,))
    assert names(protected_users(actor)) == ADMINISTER


@pytest.mark.parametrize("column", ["is_staff", "is_active"])
def test_the_permission_counts_in_the_admin_only(column: str) -> None:
    actor = actor_with(can=(REVOKE_PERMISSION,), **{column: False})
    assert names(protected_users(actor)) == ABOVE[()] | ABOVE_ALL
    assert not has_admin_permission(actor, REVOKE_PERMISSION)


def test_the_permission_needs_the_second_factor_that_staff_must_have(
    settings: Any,
) -> None:
    actor = actor_with(can=(REVOKE_PERMISSION,))
    assert has_admin_permission(actor, REVOKE_PERMISSION)
    assert not has_admin_permission(actor, UNLOCK_PERMISSION)
    settings.STAFF_SECOND_FACTOR = True
    assert not has_admin_permission(actor, REVOKE_PERMISSION)
    Authenticator.objects.create(user=actor, type="totp", data={})
    assert has_admin_permission(actor, REVOKE_PERMISSION)


@pytest.mark.parametrize(
    ("columns", "may"),
    [({}, True), ({"is_staff": False}, False), ({"is_active": False}, False)],
    ids=str,
)
def test_only_active_staff_enter_the_admin(columns: dict[str, Any], may: bool) -> None:
    assert may_enter_admin(actor_with(**columns)) is may


@pytest.mark.parametrize("name", EVERYBODY)
def test_access_of_protected_people_is_not_revoked(name: str) -> None:
    helper = actor_with(can=(REVOKE_PERMISSION,))
    text = objection_to_revoking(helper, target(name))
    protected = (
        f"{name} has more permissions than you. Ask a superuser to revoke their access."
    )
    assert text == (protected if name in ADMINISTER else "")
    assert objection_to_revoking(target("superuser"), target(name)) == ""
    assert objection_to_revoking(helper, helper) == ""


@pytest.mark.parametrize("name", [None, *EVERYBODY])
def test_a_client_that_acts_as_somebody_above_is_not_changed(name: str | None) -> None:
    acts_as = target(name) if name else None
    text = objection_to_client(
        actor_with("Guest"), client_row("c", service_account=acts_as)
    )
    if name in ABOVE[("Guest",)] | ABOVE_ALL:
        assert text == (
            f"The client acts as {name}, who has more permissions than you. "
            "Ask a superuser."
        )
    else:
        assert text == ""


def tokens(name: str, client_id: str) -> IssuedToken:
    """One token of this user for this client."""
    pair = issue_tokens(
        target(name), issued_via="device", client_id=client_id, refresh=False
    )
    return pair.row


def test_limits_of_a_client_are_kept_while_people_above_have_its_tokens() -> None:
    actor, mine, shared = actor_with("Guest"), client_row("mine"), client_row("other")
    tokens("actor", "mine")
    tokens("guest", "mine")
    tokens("user", "other")
    assert objection_to_tokens_of(actor, mine) == ""
    text = "Users with more permissions than you have tokens of this client."
    assert objection_to_tokens_of(actor, shared).startswith(text)
    assert objection_to_tokens_of(target("superuser"), shared) == ""


@pytest.mark.parametrize("ended", ["revoked", "expired"])
def test_tokens_that_ended_do_not_keep_the_limits_of_a_client(ended: str) -> None:
    actor, one = actor_with("Guest"), client_row("one")
    rows = IssuedToken.objects.filter(pk=tokens("user", "one").pk)
    assert objection_to_tokens_of(actor, one)
    if ended == "revoked":
        rows.revoke(actor=None, reason="test")
    else:
        rows.update(expires_at=timezone.now())
    assert objection_to_tokens_of(actor, one) == ""


def test_a_host_is_changed_unless_one_of_its_clients_acts_as_somebody_above() -> None:
    actor = actor_with("Guest")
    cimd = {"registration_source": "cimd"}
    host = DocumentHost.objects.create(host="a.example")
    client_row("https://a.example/1", **cimd)
    client_row("https://a.example/2", service_account=target("guest"), **cimd)
    client_row("https://b.example/3", service_account=target("user"), **cimd)
    client_row("https://a.example/4", service_account=target("user"))
    assert objection_to_host(actor, host) == ""
    client_row(
        "https://a.example/5", name="Robot", service_account=target("user"), **cimd
    )
    assert objection_to_host(actor, host).startswith("Robot: The client acts as user,")
    assert objection_to_host(target("superuser"), host) == ""


def test_a_copy_is_changed_unless_its_clients_concern_somebody_above() -> None:
    """The account a client acts as, and the owners of its tokens."""
    actor = actor_with("Guest")
    copy = DocumentCopy.objects.create(client_id="https://a.example/1", document={})
    one = client_row("one", name="One", document_copy=copy)
    tokens("guest", "one")
    assert objection_to_copy(actor, copy) == ""
    tokens("user", "one")
    assert objection_to_copy(actor, copy).startswith("One: Users with more permissions")
    assert objection_to_copy(target("superuser"), copy) == ""
    OAuthClient.objects.filter(pk=one.pk).update(service_account=target("user"))
    assert objection_to_copy(actor, copy).startswith("One: The client acts as user,")


def test_a_key_is_kept_while_it_signs_for_people_above() -> None:
    key = SigningKey.objects.ensure_active()
    actor, helper = actor_with("Guest"), account("helper", is_staff=True)
    helper.user_permissions.set(
        Permission.objects.filter(codename="change_issuedtoken")
    )
    issue_tokens(target("guest"), issued_via="command")
    assert objection_to_retiring(actor, key) == ""
    pair = issue_tokens(target("user"), issued_via="command", refresh=False)
    assert objection_to_retiring(actor, key) == (
        "Users with more permissions than you have tokens signed "
        f"with {key.kid}. Ask a superuser."
    )
    assert objection_to_retiring(helper, key) == ""
    other = SigningKey.objects.exclude(pk=key.pk).get()
    assert objection_to_retiring(actor, other) == ""
    IssuedToken.objects.filter(pk=pair.row.pk).revoke(actor=None, reason="test")
    assert objection_to_retiring(actor, key) == ""


def test_people_are_imported_by_active_superusers_and_commands_only() -> None:
    text = "Only superusers can import users or a policy."
    top = target("superuser")
    assert objection_to_importing(top) == ""
    assert objection_to_importing("command line") == ""
    assert objection_to_importing(actor_with("Admin", can=PERMISSIONS)) == text
    for column in ("is_active", "is_superuser"):
        before = getattr(top, column)
        User.objects.filter(pk=top.pk).update(**{column: False})
        assert objection_to_importing(top) == text, "read again"
        User.objects.filter(pk=top.pk).update(**{column: before})
    assert objection_to_importing(top) == ""
