"""Compiled queries: their rows are those of the queryset."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, connections
from django.db.models import F
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext

from accounts.models import IssuedToken, RevokedToken, User
from accounts.models.statements.queries import CompiledQuery, Given
from tests.support.model_rows import past, person, soon, token_row

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann() -> User:
    return person("ann")


def of_owner() -> Any:
    """Tokens of a user that end after a moment; they are named by their owner."""
    rows = IssuedToken.objects.filter(user_id=Given(IssuedToken, "user"), kind="access")
    rows = rows.filter(expires_at__gt=Given(IssuedToken, "expires_at"))
    return rows.with_revoked().annotate(owner=F("user__username"))


def test_rows_are_instances_with_their_columns_and_annotations(ann: User) -> None:
    """Dates, UUIDs and truth values have other forms in SQLite."""
    live, gone = token_row(ann, expires_at=soon()), token_row(ann, expires_at=soon())
    token_row(ann, expires_at=past())
    token_row(person("bob"), expires_at=soon())
    RevokedToken.objects.create(jti=gone.jti, until=gone.expires_at)
    found = CompiledQuery(of_owner).rows(user=ann.pk, expires_at=past())
    assert {row.pk: (row.revoked, row.owner) for row in found} == {
        live.pk: (False, "ann"),
        gone.pk: (True, "ann"),
    }
    for row in found:
        stored = IssuedToken.objects.get(pk=row.pk)
        for field in IssuedToken._meta.concrete_fields:
            assert getattr(row, field.attname) == getattr(stored, field.attname)
        assert row._state.db == "default" and not row._state.adding


def test_values_are_tuples(ann: User) -> None:
    row = token_row(ann)
    query = CompiledQuery(
        lambda: IssuedToken.objects.filter(jti=Given(IssuedToken, "jti")).values_list(
            "family", "user__username", "expires_at"
        )
    )
    expected = (row.family, "ann", row.expires_at)
    assert (
        query.rows(jti=row.jti) == [expected] and query.first(jti=row.jti) == expected
    )
    assert query.rows(jti="none") == [] and query.first(jti="none") is None


def test_django_compiles_once(ann: User) -> None:
    made: list[str] = []

    def make() -> Any:
        made.append("made")
        return User.objects.filter(username=Given(User, "username"))

    query = CompiledQuery(make)
    with CaptureQueriesContext(connection) as queries:
        assert query.first(username="ann") == ann
        assert query.first(username="bob") is None
    assert made == ["made"] and len(queries) == 2
    assert "ORDER BY" not in queries[0]["sql"]


def test_values_cannot_change_the_statement(ann: User) -> None:
    query = CompiledQuery(lambda: User.objects.filter(username=Given(User, "username")))
    assert query.rows(username="' OR 1=1 --") == []
    assert query.rows(username="%s") == []


def test_locks_need_a_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    query = CompiledQuery(
        lambda: User.objects.select_for_update().filter(pk=Given(User, "id"))
    )
    assert query.rows(id=0) == []
    monkeypatch.setattr(connections["default"], "in_atomic_block", False)
    with pytest.raises(TransactionManagementError, match="in a transaction only"):
        query.rows(id=0)
