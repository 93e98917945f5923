"""Password links end with the account's access."""

from __future__ import annotations

from typing import Any

from accounts.authentication.passwords.reset_links import ResetTokenGenerator
from accounts.models import User
from tests.support.users import account


def test_a_link_ends_when_access_is_revoked(db: None) -> None:
    """Another account's revocation does not matter; nor does another's link."""
    alice, bob = account("alice"), account("bob")
    links = ResetTokenGenerator()
    key = links.make_token(alice)
    bob.revoke_tokens(actor=None, reason="x")
    assert links.check_token(alice, key) and not links.check_token(bob, key)
    alice.revoke_tokens(actor=None, reason="x")
    assert not links.check_token(alice, key)


def test_a_link_is_used_once(db: None) -> None:
    alice = account("alice")
    links: Any = ResetTokenGenerator()
    key = links.make_token(alice)
    User.objects.filter(pk=alice.pk).update(password="md5$salt$new")
    alice.refresh_from_db()
    assert not links.check_token(alice, key)
