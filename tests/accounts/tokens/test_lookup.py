"""The row of a raw token of any kind."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import IssuedToken, User
from accounts.tokens.issue import issue_personal_token, issue_tokens
from accounts.tokens.lookup import find_token
from tests.support.accounts import HOUR
from tests.support.users import account

pytestmark = pytest.mark.django_db


def tokens_of(user: User) -> dict[str, tuple[str, IssuedToken]]:
    signed = issue_tokens(user, issued_via="password")
    opaque = issue_tokens(user, issued_via="device", opaque=True)
    assert signed.refresh_row is not None and opaque.refresh_row is not None
    row, raw = issue_personal_token(user, name="n", scope="", lifetime=HOUR)
    return {
        "access": (signed.access, signed.row),
        "refresh": (signed.refresh, signed.refresh_row),
        "opaque": (opaque.refresh, opaque.refresh_row),
        "personal": (raw, row),
    }


@pytest.mark.parametrize("kind", ["access", "refresh", "opaque", "personal"])
def test_a_token_is_found_also_if_it_is_revoked(kind: str) -> None:
    user = account("u")
    raw, row = tokens_of(user)[kind]
    found = find_token(raw)
    assert found == row and found.revoked is False  # type: ignore[attr-defined]
    IssuedToken.objects.filter(pk=row.pk).revoke(actor=None, reason="test")
    found = find_token(raw)
    assert found == row and found.revoked is True  # type: ignore[attr-defined]
    assert found.user == user


@pytest.mark.parametrize(("kind", "queries"), [("opaque", 1), ("access", 3)])
def test_a_token_is_found_with_its_owner(
    kind: str, queries: int, django_assert_num_queries: Any
) -> None:
    """A signed one takes two more: its key, and the row of its id."""
    raw = tokens_of(account("u"))[kind][0]
    with django_assert_num_queries(queries):
        found = find_token(raw)
        assert found is not None and found.user is not None


def test_an_expired_token_is_found() -> None:
    user = account("u")
    pair = issue_tokens(user, issued_via="command", lifetime=-timedelta(hours=1))
    assert find_token(pair.access) == pair.row
    row, raw = issue_personal_token(user, name="n", scope="", lifetime=HOUR)
    IssuedToken.objects.filter(pk=row.pk).update(expires_at=timezone.now())
    assert find_token(raw) == row


def test_an_unknown_or_forged_token_is_not_found() -> None:
    pair = issue_tokens(account("u"), issued_via="command")
    for raw in ("", "text", "portico_pat_x", pair.access[:-4] + "AAAA"):
        assert find_token(raw) is None
    pair.row.delete()
    assert find_token(pair.access) is None
