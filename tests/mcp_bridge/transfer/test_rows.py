"""Rows in pages, and their digests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from django.db import connection, models
from django.test.utils import CaptureQueriesContext

from accounts.models import AuditEvent, RevokedToken, Scope
from mcp_bridge.models import ChangeCounter, LoggedChange
from mcp_bridge.transfer import rows
from mcp_bridge.transfer.rows import Digest, copied_models, pages, row_bytes

NOON = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.mark.once
def test_equal_values_have_equal_bytes() -> None:
    """One moment in two time zones, bytes of two drivers, and JSON in any order."""
    east = NOON.astimezone(timezone(timedelta(hours=9)))
    one = (1, NOON, b"\x00\xff", {"a": 1, "b": [None, 2.5]}, None, True)
    two = (1, east, memoryview(b"\x00\xff"), {"b": [None, 2.5], "a": 1}, None, True)
    assert row_bytes(one) == row_bytes(two)


@pytest.mark.once
@pytest.mark.parametrize(
    "other",
    [
        (1, NOON + timedelta(microseconds=1), b"a", {"a": 1}, ""),
        (1, NOON, b"b", {"a": 1}, ""),
        (1, NOON, b"a", {"a": 2}, ""),
        (1, NOON, b"a", {"a": 1}, None),
        (1, NOON, b"a", {"a": 1}, " "),
    ],
)
def test_every_difference_shows(other: Any) -> None:
    assert row_bytes(other) != row_bytes((1, NOON, b"a", {"a": 1}, ""))


@pytest.mark.once
def test_a_digest_does_not_depend_on_the_order() -> None:
    """PostgreSQL and SQLite sort text differently."""
    digests = [Digest() for _ in range(3)]
    for digest, order in zip(digests, ("abc", "cab", "aab"), strict=True):
        for letter in order:
            digest.add(letter.encode())
    assert digests[0] == digests[1] != digests[2] and digests[0].rows == 3


@pytest.mark.django_db
def test_every_table_is_copied_except_the_change_log() -> None:
    tables = set(connection.introspection.table_names())
    copied = {model._meta.db_table for model in copied_models()}
    own = {m._meta.db_table for m in (ChangeCounter, LoggedChange)}
    assert copied == tables - own - {"django_migrations"}


@pytest.mark.django_db
def test_pages_grow_and_hold_bounded_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PAGE_ROWS", 4)
    for number in range(12):
        RevokedToken.objects.create(jti=f"{number:02}", until=NOON)
    digest = Digest()
    with CaptureQueriesContext(connection) as queries:
        found = list(pages(RevokedToken, "default", digest))
    assert [len(page) for page in found] == [1, 2, 4, 4, 1]
    assert [row[0] for page in found for row in page] == [f"{n:02}" for n in range(12)]
    assert digest.rows == 12
    assert all(" LIMIT " in query["sql"] for query in queries)


@pytest.mark.django_db
def test_large_rows_come_in_small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stored file of 20 MB must not be read 500 times at once."""
    monkeypatch.setattr(rows, "PAGE_BYTES", 1000)
    for number in range(5):
        RevokedToken.objects.create(jti=str(number), until=NOON, reason="x" * 250)
    sizes = [len(page) for page in pages(RevokedToken, "default", Digest())]
    assert sizes == [1, 2, 2]


@pytest.mark.django_db
def test_an_empty_table_has_no_page() -> None:
    assert list(pages(RevokedToken, "default", Digest())) == []


@pytest.mark.django_db
def test_managers_hide_no_rows() -> None:
    """The audit's manager, and defaults such as an order, are not used."""
    AuditEvent(action="a", at=NOON, changes={"k": [1, None]}).save()
    (row,) = [r for page in pages(AuditEvent, "default", Digest()) for r in page][-1:]
    assert NOON in row and {"k": [1, None]} in row
    stored = models.QuerySet(Scope).count()
    assert sum(len(page) for page in pages(Scope, "default", Digest())) == stored


@pytest.mark.django_db
def test_a_digest_covers_the_whole_row() -> None:
    """Keys alone are equal after a copy that lost everything else."""
    totals = set()
    row = RevokedToken.objects.create(jti="a", until=NOON)
    for reason in ("", "x"):
        row.reason = reason
        row.save()
        totals.add(rows.table_digest(RevokedToken, "default").total)
    assert len(totals) == 2


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("bound", "most", "sizes"),
    [
        ("PAGE_BYTES", 10, [1, 1, 1, 1, 1, 1, 1]),
        ("PAGE_ROWS", 2, [1, 2, 2, 2]),
        ("PARAMETERS", 2 * len(rows.columns(RevokedToken)) + 1, [1, 2, 2, 2]),
    ],
)
def test_no_bound_loses_a_row(
    monkeypatch: pytest.MonkeyPatch, bound: str, most: int, sizes: list[int]
) -> None:
    """A row larger than a page comes alone."""
    monkeypatch.setattr(rows, bound, most)
    for number in range(7):
        RevokedToken.objects.create(jti=str(number), until=NOON, reason="x" * 50)
    found = list(pages(RevokedToken, "default", Digest()))
    assert [len(page) for page in found] == sizes
