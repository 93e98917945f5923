"""Revocations are kept until their token has expired."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from accounts.models import RevokedToken

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 5, 10, 12, 30, tzinfo=UTC)
TICK = timedelta(microseconds=1)


@pytest.mark.parametrize("given", [NOW, None])
def test_a_purge_keeps_revocations_of_tokens_that_have_not_expired(
    monkeypatch: pytest.MonkeyPatch, given: datetime | None
) -> None:
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    for jti, until in (("old", NOW - TICK), ("edge", NOW), ("live", NOW + TICK)):
        RevokedToken.objects.create(jti=jti, until=until)
    assert RevokedToken.objects.all().purge(given) == 1
    assert {str(row) for row in RevokedToken.objects.all()} == {"edge", "live"}


def test_a_purge_uses_the_given_time() -> None:
    RevokedToken.objects.create(jti="a", until=NOW)
    assert RevokedToken.objects.all().purge(NOW - timedelta(days=1)) == 0
    assert RevokedToken.objects.all().purge(NOW + timedelta(days=1)) == 1


def test_the_newest_revocation_is_listed_first() -> None:
    for jti, at in (("b", NOW), ("c", NOW + TICK), ("a", NOW - TICK)):
        RevokedToken.objects.create(jti=jti, until=NOW, revoked_at=at)
    assert [row.jti for row in RevokedToken.objects.all()] == ["c", "b", "a"]
