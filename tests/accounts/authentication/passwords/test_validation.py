"""A new password ends the account's access, and is recorded with its author."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.test import RequestFactory

from accounts.audit.request_origin import origin_of
from accounts.authentication.passwords.validation import RevokeOnPasswordChange
from accounts.models import AuditEvent, IssuedToken, User
from accounts.models.audit.origins import origin_var
from accounts.tokens.issue import issue_tokens
from tests.support.users import account


@pytest.fixture(autouse=True)
def cheap(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.mark.parametrize("author", ["alice", "carol", "nobody", ""])
def test_a_new_password_ends_this_accounts_access(db: None, author: str) -> None:
    alice, bob = account("alice"), account("bob")
    for user in (alice, bob):
        issue_tokens(user, issued_via="password")
    users: dict[str, Any] = {"alice": alice, "carol": account("carol")}
    users["nobody"] = AnonymousUser()
    alice.set_password("a new one")
    if author:
        request = RequestFactory().post("/x", REMOTE_ADDR="192.0.2.7")
        request.user = users[author]
        token = origin_var.set(origin_of(request))
        alice.save()
        origin_var.reset(token)
    else:
        alice.save()
    assert not IssuedToken.objects.filter(user=alice).live().exists()
    assert IssuedToken.objects.filter(user=bob).live().count() == 2
    event = AuditEvent.objects.get(action="user.password_changed")
    # Without a session, the holder of the mailed link is the user.
    name = {"nobody": "alice", "": "command line"}.get(author, author)
    assert (event.actor, event.object) == (name, "alice")
    assert event.address == ("192.0.2.7" if author else "")
    revoked = AuditEvent.objects.filter(action="token.revoked")
    assert {(e.actor, e.reason) for e in revoked} == {(name, "password changed")}
    assert User.objects.get(pk=alice.pk).session_epoch == alice.session_epoch == 1


def test_other_saves_end_nothing(db: None) -> None:
    alice = account("alice")
    alice.first_name = "Alice"
    alice.save()
    assert not AuditEvent.objects.exists()


def test_every_password_is_accepted_here(db: None) -> None:
    validator = RevokeOnPasswordChange()
    alice = account("alice")
    alice.set_password("the same again")
    validator.validate("the same again", alice)
    validator.validate("")
    assert "signs the account out" in str(validator.get_help_text())
    validator.password_changed("x", None)
    assert not AuditEvent.objects.exists()
