"""Who may invite a person, with which roles, and when a link stops working."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.utils import timezone

from accounts.authorization import invitations
from accounts.authorization.delegation import NotAllowed
from accounts.authorization.invitations import (
    InvitationOver,
    accept_invitation,
    can_sign_in,
    give_role,
    invitation_url,
    invite,
    invite_imported,
    objection_to_inviting,
    objection_to_roles,
    usable_invitation,
    withdraw_invitation,
)
from accounts.crypto.secrets import secret_hash
from accounts.models import AuditEvent, Invitation, Role, RoleAssignment, User
from accounts.models.users import UserQuerySet
from accounts.tokens.issue import issue_tokens
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
    assert events == [
        ("lead", "user.added", "dana", ""),
        ("lead", "role.granted", "dana has User", "invited"),
        ("lead", "invitation.created", "dana", ""),
    ]
    held = RoleAssignment.objects.get(user__username="dana")
    assert (held.role.name, held.expires_at, held.granted_by) == ("User", until, lead)
    assert held.reason == "invited"
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
    soon = timezone.now() + timedelta(hours=8)
    invite(User(username="dana"), roles("User"), soon, actor=lead)
    assert objection_to_roles(lead, User(), roles("User"), soon) == ""
    assert objection_to_roles(lead, User(), [], late) == ""
    assert objection_to_roles("command line", User(), roles("Admin"), None) == ""


def test_a_longer_role_is_not_shortened(lead: User) -> None:
    dana = account("dana", "User")
    soon = timezone.now() + timedelta(hours=8)
    invite(dana, roles("User"), soon, actor="command line")
    held = RoleAssignment.objects.get(user=dana)
    assert held.expires_at is None
    held.expires_at = soon + timedelta(hours=1)
    held.save()
    assert give_role(dana, held.role, soon, actor="command line") == held
    held.refresh_from_db()
    assert held.expires_at == soon + timedelta(hours=1)


@pytest.mark.parametrize("days", [None, 9])
def test_a_role_is_extended_until_then(root: User, days: int | None) -> None:
    """An ended one is granted again; the event has both ends."""
    dana, now = account("dana"), timezone.now()
    until = None if days is None else now + timedelta(days=days)
    for name, hours in {"Guest": -8, "User": 8}.items():
        before = now + timedelta(hours=hours)
        role = Role.objects.get(name=name)
        RoleAssignment.objects.grant(dana, role, expires_at=before)
        given = give_role(dana, role, until, actor=root, reason="why")
        assert given == RoleAssignment.objects.get(user=dana, role=role)
        assert (given.expires_at, given.granted_by) == (until, root)
        event = AuditEvent.objects.latest("pk")
        assert (event.action, event.actor) == ("role.extended", "root")
        assert (event.object, event.reason) == (f"dana has {name}", "why")
        ends = {"expires_at": [str(before), str(until or "")]}
        assert event.changes == ends


def test_a_role_that_lasts_as_long_is_returned_unchanged(root: User) -> None:
    dana, role = account("dana", "User"), Role.objects.get(name="User")
    before = AuditEvent.objects.count()
    given = give_role(dana, role, None, actor=root)
    assert given.granted_by is None and AuditEvent.objects.count() == before


def test_a_new_role_of_the_command_line_has_no_granter() -> None:
    given = give_role(account("dana"), roles("User")[0], None, actor="command line")
    assert given.granted_by is None and given.reason == ""
    event = AuditEvent.objects.latest("pk")
    assert (event.action, event.actor) == ("role.granted", "command line")
    assert event.changes == {"expires_at": ["", ""]}


def test_a_taken_name_is_refused(lead: User) -> None:
    """Somebody else added the account after the form was checked."""
    account("dana")
    text = "A user dana exists already. Choose a name that differs more."
    with pytest.raises(NotAllowed) as refused:
        invite(User(username="dana"), [], None, actor=lead)
    assert str(refused.value) == text and User.objects.filter(username="dana").exists()


def test_the_link_is_a_page_of_this_server(settings: Any) -> None:
    settings.ISSUER_URL = "https://h.example"
    assert invitation_url("x") == "https://h.example/accounts/invitation/x/"


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
    assert can_sign_in(dana) is True and not can_sign_in(account("other"))
    text = "dana can sign in already and needs no invitation."
    assert objection_to_inviting(root, dana) == text
    assert objection_to_inviting("command line", dana) == text


def test_a_second_factor_alone_signs_nobody_in(root: User) -> None:
    dana = account("dana")
    Authenticator.objects.create(user=dana, type="totp", data={})
    assert can_sign_in(dana) is False and objection_to_inviting(root, dana) == ""
    for unusable in ("", "!"):
        dana.password = unusable
        assert can_sign_in(dana) is False


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (
            {"is_service_account": True},
            "dana is a service account. It signs in with client credentials.",
        ),
        ({"is_active": False}, "dana is not active. Activate the account first."),
        ({"is_staff": True}, "dana has more permissions than you. Ask a superuser."),
        ({}, ""),
    ],
    ids=["program", "closed", "above", "other"],
)
def test_these_accounts_are_not_invited(
    lead: User, columns: dict[str, Any], text: str
) -> None:
    """Programs, closed accounts, and accounts with more rights."""
    dana = account("dana", **columns)
    assert objection_to_inviting(lead, dana) == text
    by_command = "" if "is_staff" in columns else text
    assert objection_to_inviting("command line", dana) == by_command
    if not text:
        return
    with pytest.raises(NotAllowed) as refused:
        invite(dana, roles("User"), None, actor=lead)
    assert str(refused.value) == text and not Invitation.objects.exists()


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
    invite(User(username="other"), [], None, actor="command line")
    assert accept_invitation(secret_hash(raw), "192.0.2.1") == row.user
    row.refresh_from_db()
    assert row.accepted_at is not None and row.accepted_from == "192.0.2.1"
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

    locked: list[list[int]] = []

    def lock_rows(rows: Any) -> list[int]:
        ENDS["the account was closed"](root, row.user)
        locked.append(list(rows.values_list("pk", flat=True)))
        return locked[-1]

    monkeypatch.setattr(UserQuerySet, "lock_rows", lock_rows)
    with pytest.raises(InvitationOver):
        accept_invitation(secret_hash(raw), "192.0.2.1")
    assert locked == [[row.user_id]]


def test_withdrawing_closes_an_account_that_was_made_for_it(root: User) -> None:
    """Otherwise a password mail would let the person in."""
    row, raw = invite(User(username="dana"), roles("User"), None, actor=root)
    other, kept = invite(User(username="other"), roles("User"), None, actor=root)
    issue_tokens(row.user, issued_via="command", refresh=False)
    done: list[bool] = []
    events = new_events(lambda: done.append(withdraw_invitation(row, actor=root)))
    assert done == [True] and not User.objects.get(username="dana").is_active
    assert usable_invitation(secret_hash(raw)) is None
    why = "invitation withdrawn"
    assert ("root", "invitation.withdrawn", "dana", why) in events
    assert ("root", "token.revoked", "access token of dana", why) in events
    assert events[-1] == ("root", "user.deactivated", "dana", why)
    assert usable_invitation(secret_hash(kept)) == other
    assert User.objects.get(username="other").is_active


def test_withdrawing_keeps_an_older_account(root: User) -> None:
    row, raw = invite(account("dana"), [], None, actor=root)
    assert not row.made_account and withdraw_invitation(row, actor=root) is False
    assert User.objects.get(username="dana").is_active
    assert usable_invitation(secret_hash(raw)) is None


@pytest.mark.parametrize("way", SIGN_IN)
def test_withdrawing_keeps_an_account_that_can_sign_in(root: User, way: str) -> None:
    row, _raw = invite(User(username="dana"), [], None, actor=root)
    SIGN_IN[way](row.user)
    row = Invitation.objects.get()
    assert withdraw_invitation(row, actor=root) is False
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
    account("unnamed")
    names = ["new", "known", "robot", "waits", "unknown"]
    ((row, raw),) = invite_imported(names, actor=root)
    assert (row.user.username, row.invited_by) == ("new", root)
    assert not row.made_account and usable_invitation(secret_hash(raw)) == row


def test_every_batch_of_an_import_is_invited(
    root: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invitations, "BATCH", 2)
    names = [account(f"new{number}").username for number in range(5)]
    found = [row.user.username for row, _raw in invite_imported(names, actor=root)]
    assert found == names
