"""Invitations: states, one waiting link for each person, and their end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.crypto.secrets import secret_hash
from accounts.models import Invitation, User
from accounts.models.onboarding.invitations import InvitationState
from tests.support.commands import new_events
from tests.support.model_rows import past
from tests.support.users import account

pytestmark = pytest.mark.django_db


@pytest.fixture
def dana() -> User:
    return account("dana")


def issue(user: User) -> tuple[Invitation, str]:
    return Invitation.objects.issue(user, actor="command line")


def test_the_token_is_stored_as_its_hash_only(dana: User) -> None:
    row, raw = issue(dana)
    stored = Invitation.objects.values().get()
    assert raw not in str(stored) and stored["token"] == secret_hash(raw)
    assert Invitation.objects.all().with_token_hash(secret_hash(raw)) == row
    assert len(raw) >= 43, "256 random bits"


def test_a_new_link_ends_the_earlier_one(dana: User) -> None:
    _row, old = issue(dana)
    _row, new = issue(dana)
    row = Invitation.objects.get()
    assert not Invitation.objects.all().with_token_hash(secret_hash(old))
    assert Invitation.objects.all().with_token_hash(secret_hash(new)) == row


def test_a_new_link_was_not_mailed(dana: User) -> None:
    issue(dana)
    Invitation.objects.update(mailed_to="dana@example.org")
    row, _raw = issue(dana)
    row.refresh_from_db()
    assert row.mailed_to == ""


def test_a_new_link_lasts_as_long_as_the_setting_says(
    dana: User, settings: Any
) -> None:
    issue(dana)
    Invitation.objects.update(expires_at=past())
    settings.INVITATION_LIFETIME = timedelta(days=2)
    row, _raw = issue(dana)
    left = row.expires_at - timezone.now()
    assert timedelta(days=1, hours=23) < left <= timedelta(days=2)


COLUMNS: dict[str, dict[str, Any]] = {
    "pending": {},
    "expired": {"expires_at": past()},
    "accepted": {"accepted_at": past(), "expires_at": past()},
    "withdrawn": {"withdrawn_at": past()},
}


@pytest.mark.parametrize("state", COLUMNS)
def test_each_invitation_is_in_one_state(dana: User, state: str) -> None:
    row, raw = issue(dana)
    Invitation.objects.update(**COLUMNS[state])
    row.refresh_from_db()
    assert row.state == state
    found = [s for s in InvitationState.values if Invitation.objects.in_state(s)]
    assert found == [state]
    works = Invitation.objects.all().with_token_hash(secret_hash(raw)) is not None
    assert works == (state == "pending") == row.claim("192.0.2.1")


def test_a_link_works_once(dana: User) -> None:
    row, _raw = issue(dana)
    events = new_events(lambda: row.claim("192.0.2.1"))
    assert [(e[0], e[1]) for e in events] == [("dana", "invitation.accepted")]
    assert new_events(lambda: row.claim("192.0.2.2")) == []
    row.refresh_from_db()
    assert row.accepted_from == "192.0.2.1" and row.state == "accepted"


def test_a_replaced_link_cannot_be_claimed(dana: User) -> None:
    """Both were read before the new one was made."""
    row, _raw = issue(dana)
    issue(dana)
    assert not row.claim("192.0.2.1")


@pytest.mark.parametrize("end", ["revoke_all_sessions", "deactivate"])
def test_the_end_of_all_access_ends_the_link(dana: User, end: str) -> None:
    issue(dana)
    account_ = User.objects.filter(pk=dana.pk)
    events = new_events(lambda: getattr(account_, end)(actor="x", reason="left"))
    assert ("x", "invitation.withdrawn", "dana", "left") in events
    assert Invitation.objects.get().state == "withdrawn"


def test_an_accepted_invitation_is_not_withdrawn(dana: User) -> None:
    row, _raw = issue(dana)
    row.claim("192.0.2.1")
    assert Invitation.objects.all().withdraw(actor=None, reason="x") == 0
    issue(dana)
    assert Invitation.objects.count() == 2
