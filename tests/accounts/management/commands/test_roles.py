"""`manage.py grant_role` and `revoke_role`: rows and events."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import IssuedToken, RoleAssignment, User
from accounts.tokens.issue import issue_tokens
from tests.support.commands import new_events, refusal, run_command
from tests.support.users import make_user

pytestmark = pytest.mark.django_db


def role_names(user: User) -> set[str]:
    return set(user.role_assignments.values_list("role__name", flat=True))


def test_a_grant_has_an_end_a_reason_and_an_event(alice: User, bob: User) -> None:
    found = new_events(
        lambda: run_command(
            "grant_role", "alice", "Admin", "--until", "8h", "--reason", "stand-in"
        )
    )
    row = RoleAssignment.objects.get(user=alice, role__name="Admin")
    assert found == [("command line", "role.granted", "alice has Admin", "stand-in")]
    assert row.reason == "stand-in" and row.expires_at is not None
    assert abs(row.expires_at - timezone.now() - timedelta(hours=8)) < timedelta(
        minutes=1
    )
    assert role_names(bob) == {"Guest"}


def test_a_second_grant_extends_the_first(alice: User) -> None:
    run_command("grant_role", "alice", "Admin", "--until", "8h")
    told: list[str] = []
    found = new_events(lambda: told.append(run_command("grant_role", "alice", "Admin")))
    assert found == [("command line", "role.extended", "alice has Admin", "")]
    row = RoleAssignment.objects.get(user=alice, role__name="Admin")
    assert row.expires_at is None and told == ["alice has Admin.\n"]


def test_the_end_is_printed(alice: User) -> None:
    told = run_command("grant_role", "alice", "Admin", "--until", "2999-12-31T10:00Z")
    assert told == "alice has Admin until 2999-12-31 10:00 UTC.\n"


@pytest.mark.parametrize("command", ["grant_role", "revoke_role"])
def test_unknown_names_change_nothing(alice: User, command: str) -> None:
    assert "There is no user x; to add one" in refusal(command, "x", "User")
    assert "There is no role x; there are: " in refusal(command, "alice", "x")
    assert role_names(alice) == {"User"}


def test_a_withdrawal_ends_one_role_of_one_user(alice: User, bob: User) -> None:
    make_user("alice", "User", "Guest")
    issue_tokens(alice, issued_via="command")
    found = new_events(
        lambda: run_command("revoke_role", "alice", "Guest", "--reason", "left")
    )
    assert found == [("command line", "role.withdrawn", "alice has Guest", "left")]
    assert role_names(alice) == {"User"} and role_names(bob) == {"Guest"}
    assert IssuedToken.objects.live().filter(user=alice).count() == 2


def test_the_last_withdrawal_ends_the_tokens(alice: User, bob: User) -> None:
    for user in (alice, bob):
        issue_tokens(user, issued_via="command")
    told: list[str] = []
    found = new_events(lambda: told.append(run_command("revoke_role", "alice", "User")))
    assert told == ["alice no longer has User; 2 tokens revoked.\n"]
    assert [event[:2] for event in found] == [
        ("command line", "role.withdrawn"),
        ("command line", "token.revoked"),
        ("command line", "token.revoked"),
    ]
    assert not IssuedToken.objects.live().filter(user=alice).exists()
    assert IssuedToken.objects.live().filter(user=bob).count() == 2


def test_a_role_that_is_not_held_cannot_be_withdrawn(alice: User) -> None:
    assert refusal("revoke_role", "alice", "Guest") == "alice does not hold Guest."
