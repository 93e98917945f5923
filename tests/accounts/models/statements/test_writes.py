"""Statements that are written once store what Django's would store."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import Value
from django.db.models.functions import Upper
from django.db.models.signals import post_save
from django.db.models.sql.compiler import SQLInsertCompiler
from django.test.utils import CaptureQueriesContext

from accounts.models import AuditEvent, IssuedToken, User
from accounts.models.statements import writes
from accounts.models.statements.execution import fetch
from accounts.models.statements.writes import (
    delete_row,
    insert_rows,
    update_columns,
)
from tests.support.model_rows import person, soon, token_row

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann() -> User:
    return person("ann")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models whose rows Django's compiler inserts."""
    used: list[str] = []
    honest = SQLInsertCompiler.as_sql

    def as_sql(self: Any) -> Any:
        used.append(self.query.model.__name__)
        return honest(self)

    monkeypatch.setattr(SQLInsertCompiler, "as_sql", as_sql)
    return used


def unsaved(user: User, **columns: Any) -> IssuedToken:
    stored = token_row(user, **columns)
    IssuedToken.objects.filter(pk=stored.pk).delete()
    stored.pk, stored._state.adding = None, True
    return stored


def same(row: Any) -> bool:
    """Whether the stored row has the values of the instance."""
    stored = type(row).objects.get(pk=row.pk)
    names = [field.attname for field in row._meta.concrete_fields]
    return all(getattr(stored, name) == getattr(row, name) for name in names)


def test_rows_are_stored_as_they_are(ann: User, compiled: list[str]) -> None:
    rows = [
        unsaved(ann),
        unsaved(ann, successor_sealed=b"\x00sealed", last_used_at=soon()),
    ]
    compiled.clear()
    with CaptureQueriesContext(connection) as queries:
        insert_rows(rows)
    assert len(queries) == 1 and compiled == []
    assert rows[0].pk < rows[1].pk and all(map(same, rows))
    assert not rows[1]._state.adding and rows[1]._state.db == "default"


def test_an_old_sqlite_does_not_return_keys(
    ann: User, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 3.35. Django asks for the last key after each row."""
    rows = [unsaved(ann), unsaved(ann)]
    monkeypatch.setattr(writes, "returns_rows", lambda connection: False)
    compiled.clear()
    insert_rows(rows)
    assert all(map(same, rows)) and compiled == ["IssuedToken", "IssuedToken"]
    event = AuditEvent(action="a.b")
    event.save()
    assert same(event) and compiled[2:] == ["AuditEvent"]


def test_an_event_is_stored_and_signalled(compiled: list[str]) -> None:
    saved: list[Any] = []

    def note(instance: Any, **signal: Any) -> None:
        saved.append(instance)

    post_save.connect(note, AuditEvent)
    try:
        event = AuditEvent(action="a.b", changes={"x": ["1", None]}, token_id="f" * 32)
        event.save()
    finally:
        post_save.disconnect(note, AuditEvent)
    assert same(event) and saved == [event] and compiled == []


def test_events_are_stored_together(compiled: list[str]) -> None:
    events = [AuditEvent(action=f"a.{n}", object="\u00e9%s'") for n in range(3)]
    AuditEvent.objects.bulk_create(events)
    assert all(map(same, events)) and compiled == []
    assert [event.pk for event in events] == sorted({event.pk for event in events})


def test_expressions_and_ignored_conflicts_are_left_to_django(
    compiled: list[str],
) -> None:
    shouted = AuditEvent(action="a.b", object=Upper(Value("name")))
    AuditEvent.objects.bulk_create([shouted])
    AuditEvent.objects.bulk_create([AuditEvent(action="a.c")], ignore_conflicts=True)
    assert compiled == ["AuditEvent", "AuditEvent"]
    assert AuditEvent.objects.get(action="a.b").object == "NAME"
    assert AuditEvent.objects.filter(action="a.c").exists()


def test_a_conflict_raises(ann: User) -> None:
    twin, other = unsaved(ann), token_row(ann)
    twin.jti = other.jti
    with pytest.raises(IntegrityError), transaction.atomic():
        insert_rows([twin])


def test_only_these_columns_are_written(ann: User) -> None:
    row, other = token_row(ann), token_row(ann)
    row.last_used_at, row.successor, row.name = soon(), other, "kept in memory"
    with CaptureQueriesContext(connection) as queries:
        update_columns(row, ("last_used_at", "successor"))
    stored = IssuedToken.objects.get(pk=row.pk)
    assert (stored.last_used_at, stored.successor) == (row.last_used_at, other)
    assert stored.name == "" and len(queries) == 1
    assert IssuedToken.objects.get(pk=other.pk).successor is None


def test_a_row_is_deleted_without_signals(ann: User) -> None:
    row, other = token_row(ann), token_row(ann)
    delete_row(IssuedToken, row.pk)
    assert list(IssuedToken.objects.all()) == [other]


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite keeps plans.")
def test_postgresql_keeps_the_plans_of_changes(ann: User) -> None:
    for _ in range(settings.DATABASES["default"]["OPTIONS"]["prepare_threshold"] + 1):
        row = token_row(ann)
        update_columns(row, ("last_used_at",))
        delete_row(IssuedToken, row.pk)
    kept = "SELECT statement FROM pg_prepared_statements WHERE statement LIKE %s"
    for change in ("UPDATE", "DELETE FROM"):
        assert fetch(connection, kept, [f'{change} "accounts_issuedtoken"%'])
