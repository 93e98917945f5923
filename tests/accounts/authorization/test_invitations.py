"""Who may invite a person, with which roles, and when a link stops working."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.utils import timezone

from accounts.authorization.delegation import NotAllowed
from accounts.authorization.invitations import (
    InvitationOver,
    accept_invitation,
    can_sign_in,
    invite,
    invite_imported,
    objection_to_inviting,
    usable_invitation,
    withdraw_invitation,
)
from accounts.crypto.secrets import secret_hash
from accounts.models import Invitation, Role, RoleAssignment, User
from accounts.models.users import UserQuerySet
from tests.support.commands import new_events
from tests.support.users import account

pytestmark = pytest.mark.django_db


@pytest.fixture
def lead() -> User:
    """Staff with the role User: may give it, but not Admin."""
    return account("lead", "User", is_staff=True)


@pytest.fixture
def root() -> User:
    return account("root", is_staff=True, is_superuser=True)


def roles(*names: str) -> list[Role]:
    return list(Role.objects.filter(name__in=names))


def test_the_account_gets_its_roles_and_a_link(lead: User) -> None:
    until = timezone.now() + timedelta(days=2)
    events = new_events(
        lambda: invite(User(username="dana"), roles("User"), until, actor=lead)
    )
    assert [(e[0], e[1]) for e in events] == [
        ("lead", "user.added"),
        ("lead", "role.granted"),
        ("lead", "invitation.created"),
    ]
    held = RoleAssignment.objects.get(user__username="dana")
    assert (held.role.name, held.expires_at, held.granted_by) == ("User", until, lead)
    dana = User.objects.get(username="dana")
    assert not dana.has_usable_password() and Invitation.objects.get().made_account


@pytest.mark.parametrize("names", [["Admin"], ["User", "Admin"]])
def test_roles_that_one_may_not_give_are_refused(lead: User, names: list[str]) -> None:
    with pytest.raises(NotAllowed):
        invite(User(username="dana"), roles(*names), None, actor=lead)
    assert not User.objects.filter(username="dana").exists()


def test_roles_do_not_outlast_the_inviter(lead: User) -> None:
    RoleAssignment.objects.update(expires_at=timezone.now() + timedelta(days=1))
    late = timezone.now() + timedelta(days=2)
    with pytest.raises(NotAllowed, match="ends on"):
        invite(User(username="dana"), roles("User"), late, actor=lead)


def test_a_longer_role_is_not_shortened(lead: User) -> None:
    dana = account("dana", "User")
    soon = timezone.now() + timedelta(hours=8)
    invite(dana, roles("User"), soon, actor="command line")
    assert RoleAssignment.objects.get(user=dana).expires_at is None


def test_a_taken_name_is_refused(lead: User) -> None:
    """Somebody else added the account after the form was checked."""
    account("dana")
    with pytest.raises(NotAllowed, match="exists already"):
        invite(User(username="dana"), [], None, actor=lead)


SIGN_IN: dict[str, Callable[[User], Any]] = {
    "password": lambda user: User.objects.filter(pk=user.pk).update(password="x$y"),
    "passkey": lambda user: Authenticator.objects.create(
        user=user, type="webauthn", data={}
    ),
    "provider": lambda user: SocialAccount.objects.create(
        user=user, provider="corp", uid="1"
    ),
}


@pytest.mark.parametrize("way", SIGN_IN)
def test_who_can_sign_in_is_not_invited(root: User, way: str) -> None:
    """The link would be a way around their password or provider."""
    dana = account("dana")
    assert not can_sign_in(dana) and not objection_to_inviting(root, dana)
    SIGN_IN[way](dana)
    dana.refresh_from_db()
    assert can_sign_in(dana) and "already" in objection_to_inviting(root, dana)


@pytest.mark.parametrize(
    "columns",
    [{"is_service_account": True}, {"is_active": False}, {"is_staff": True}],
)
def test_these_accounts_are_not_invited(lead: User, columns: dict[str, Any]) -> None:
    """Programs, closed accounts, and accounts with more rights."""
    assert objection_to_inviting(lead, account("dana", **columns))


ENDS: dict[str, Callable[[User, User], Any]] = {
    "the inviter was deactivated": lambda lead, dana: User.objects.filter(
        pk=lead.pk
    ).update(is_active=False),
    "the inviter left the staff": lambda lead, dana: User.objects.filter(
        pk=lead.pk
    ).update(is_staff=False),
    "the inviter was deleted": lambda lead, dana: lead.delete(),
    "the inviter lost the role": lambda lead, dana: RoleAssignment.objects.filter(
        user=lead
    ).delete(),
    "the person got more rights": lambda lead, dana: RoleAssignment.objects.grant(
        dana, Role.objects.get(name="Admin")
    ),
    "the person has a password": lambda lead, dana: User.objects.filter(
        pk=dana.pk
    ).update(password="x$y"),
    "the account was closed": lambda lead, dana: User.objects.filter(pk=dana.pk).update(
        is_active=False
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_link_ends_with_the_right_to_make_it(lead: User, end: str) -> None:
    """Who made it could have kept it."""
    row, raw = invite(User(username="dana"), roles("User"), None, actor=lead)
    hashed = secret_hash(raw)
    assert usable_invitation(hashed) == row
    ENDS[end](lead, row.user)
    assert usable_invitation(hashed) is None
    with pytest.raises(InvitationOver):
        accept_invitation(hashed, "192.0.2.1")


def test_a_link_of_the_command_line_needs_no_inviter() -> None:
    row, raw = invite(User(username="dana"), [], None, actor="command line")
    assert accept_invitation(secret_hash(raw), "192.0.2.1") == row.user
    with pytest.raises(InvitationOver):
        accept_invitation(secret_hash(raw), "192.0.2.1")


@pytest.mark.parametrize("end", ["the person has a password", "the account was closed"])
def test_a_link_of_the_command_line_ends_with_the_need_for_it(
    lead: User, end: str
) -> None:
    row, raw = invite(User(username="dana"), [], None, actor="command line")
    ENDS[end](lead, row.user)
    assert usable_invitation(secret_hash(raw)) is None


def test_a_link_is_judged_under_the_lock_of_its_account(
    root: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever ends the account's access takes the same lock."""
    row, raw = invite(User(username="dana"), [], None, actor=root)

    def lock_rows(rows: Any) -> list[int]:
        ENDS["the account was closed"](root, row.user)
        return list(rows.values_list("pk", flat=True))

    monkeypatch.setattr(UserQuerySet, "lock_rows", lock_rows)
    with pytest.raises(InvitationOver):
        accept_invitation(secret_hash(raw), "192.0.2.1")


def test_withdrawing_closes_an_account_that_was_made_for_it(root: User) -> None:
    """Otherwise a password mail would let the person in."""
    row, raw = invite(User(username="dana"), roles("User"), None, actor=root)
    assert withdraw_invitation(row, actor=root)
    assert not User.objects.get(username="dana").is_active
    assert usable_invitation(secret_hash(raw)) is None


def test_withdrawing_keeps_an_older_account(root: User) -> None:
    row, _raw = invite(account("dana"), [], None, actor=root)
    assert not withdraw_invitation(row, actor=root)
    assert User.objects.get(username="dana").is_active


def test_withdrawing_keeps_an_account_that_was_used(root: User) -> None:
    row, _raw = invite(User(username="dana"), [], None, actor=root)
    User.objects.filter(username="dana").update(last_login=timezone.now())
    row.refresh_from_db()
    assert not withdraw_invitation(row, actor=root)
    assert User.objects.get(username="dana").is_active


def test_an_import_invites_who_cannot_sign_in_and_has_no_link(root: User) -> None:
    for name in ("new", "known", "robot", "waits"):
        account(name, is_service_account=name == "robot")
    User.objects.filter(username="known").update(password="x$y")
    invite(User.objects.get(username="waits"), [], None, actor=root)
    names = ["new", "known", "robot", "waits", "unknown"]
    found = [row.user.username for row, _raw in invite_imported(names, actor=root)]
    assert found == ["new"]
