"""Sequences of both databases: what was given out once is not given out again."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from django.db import connection, models

from accounts.models import AuditEvent, Role, SigningKey
from mcp_bridge.models import ClientSession
from mcp_bridge.transfer.sequences import give_ids_after, last_given_id

pytestmark = pytest.mark.django_db


class Postgres:
    """A connection that answers with these rows and keeps what it was asked."""

    vendor, alias = "postgresql", "default"

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, list[Any]]] = []

    def cursor(self) -> Any:
        return nullcontext(self)

    def execute(self, statement: str, values: Any = ()) -> None:
        self.asked.append((statement, list(values)))

    def fetchone(self) -> Any:
        return self.answers.pop(0)


def test_the_next_id_follows_the_last_one_even_of_a_deleted_row() -> None:
    event = AuditEvent(action="t")
    event.save()
    models.QuerySet(AuditEvent)._raw_delete("default")
    assert last_given_id(connection, AuditEvent) == event.pk
    give_ids_after(connection, AuditEvent, event.pk + 40)
    assert last_given_id(connection, AuditEvent) == event.pk + 40
    after = AuditEvent(action="t")
    after.save()
    assert after.pk == event.pk + 41


def test_the_largest_id_counts_if_it_is_larger() -> None:
    newest = Role.objects.create(name="newest")
    give_ids_after(connection, Role, 1)
    assert last_given_id(connection, Role) == newest.pk
    assert Role.objects.create(name="next").pk == newest.pk + 1


def test_a_table_without_rows_or_sequence_stays(db: None) -> None:
    SigningKey.objects.all().delete()
    for model in (ClientSession, SigningKey):
        before = last_given_id(connection, model)
        give_ids_after(connection, model, 0)
        assert last_given_id(connection, model) == before
    give_ids_after(connection, ClientSession, 9)
    assert last_given_id(connection, ClientSession) == 0


@pytest.mark.once
@pytest.mark.parametrize(
    ("answers", "last"),
    [([(None,)], 0), ([("seq",), (7, True)], 7), ([("seq",), (1, False)], 0)],
    ids=["no sequence", "used", "unused"],
)
def test_postgresql_says_whether_a_sequence_was_used(
    answers: list[Any], last: int
) -> None:
    """Its last_value is 1 before and after the first id."""
    database: Any = Postgres(*answers)
    assert last_given_id(database, Role) == last
    assert database.answers == []
    assert database.asked[0][1] == ['"accounts_role"', "id"]


@pytest.mark.once
def test_postgresqls_sequence_is_set_to_the_larger_number() -> None:
    newest = Role.objects.create(name="newest").pk
    for last, expected in ((newest + 5, newest + 5), (1, newest)):
        database: Any = Postgres()
        give_ids_after(database, Role, last)
        ((statement, values),) = database.asked
        assert "setval" in statement
        assert values == ['"accounts_role"', "id", expected]


@pytest.mark.once
def test_an_empty_table_sets_no_sequence_of_postgresql() -> None:
    models.QuerySet(AuditEvent)._raw_delete("default")
    database: Any = Postgres()
    give_ids_after(database, AuditEvent, 0)
    assert database.asked == []
