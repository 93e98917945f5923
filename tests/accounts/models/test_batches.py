"""Large deletes: a few statements for each batch, and never all rows in memory."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import IssuedToken, RevokedToken, User, batches
from accounts.models.batches import delete_in_batches
from tests.support.model_rows import token_row

pytestmark = pytest.mark.django_db
NOW = timezone.now()


def revocations(count: int, hours: int = -1) -> None:
    until = NOW + timedelta(hours=hours)
    RevokedToken.objects.bulk_create(
        [RevokedToken(jti=f"{hours}/{i}", until=until) for i in range(count)]
    )


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_ROWS", 4)


@pytest.mark.parametrize(
    ("rows", "sizes"), [(0, []), (3, [3]), (8, [4, 4]), (9, [4, 4, 1])]
)
def test_each_batch_is_reported_after_its_delete(rows: int, sizes: list[int]) -> None:
    revocations(rows)
    told: list[int] = []
    assert delete_in_batches(RevokedToken.objects.all(), "until", told.append) == rows
    assert told == sizes and not RevokedToken.objects.exists()


def test_a_batch_holds_a_bounded_number_of_rows(alice: User) -> None:
    """Of 13 tokens, one query returns and one statement names at most 4."""
    for _ in range(13):
        token_row(alice, expires_at=NOW - timedelta(hours=1))
    with CaptureQueriesContext(connection) as queries:
        assert IssuedToken.objects.all().purge(NOW) == 13
    found = [query["sql"] for query in queries]
    assert all(" LIMIT 4" in sql for sql in found if "ORDER BY" in sql)
    named = [sql.partition(" IN (")[2].partition(")")[0] for sql in found]
    assert max(sql.count(",") for sql in named) == 3


def test_only_the_rows_of_the_query_are_deleted() -> None:
    revocations(9)
    revocations(6, hours=+1)
    assert RevokedToken.objects.all().purge(NOW) == 9
    assert RevokedToken.objects.count() == 6


def test_rows_that_a_cascade_deletes_are_not_counted(alice: User) -> None:
    """A successor that stays loses its reference only."""
    row = token_row(alice, expires_at=NOW - timedelta(hours=1))
    before = token_row(alice, expires_at=NOW + timedelta(hours=1), successor=row)
    assert IssuedToken.objects.all().purge(NOW) == 1
    before.refresh_from_db()
    assert before.successor is None


def test_a_row_that_changed_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    revocations(9)
    rows = RevokedToken.objects.filter(until__lt=NOW)

    def extend(deleted: int) -> None:
        RevokedToken.objects.all().update(until=NOW + timedelta(hours=1))

    assert delete_in_batches(rows, "until", extend) == 4
    assert RevokedToken.objects.count() == 5
