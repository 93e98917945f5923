"""Statements that are written once: PostgreSQL keeps their plans."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.db import NotSupportedError, connection, transaction
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoDbBlocker

from accounts.models.statements.execution import fetch

READ = "SELECT name FROM x_plans WHERE id = %s"
PLANS = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE %s"

on_postgresql = pytest.mark.skipif(
    connection.vendor != "postgresql", reason="SQLite keeps plans itself."
)


@pytest.fixture
def plans(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """A table that no transaction hides; the connection is closed afterwards."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("CREATE TABLE x_plans (id bigint, name varchar(9))")
        cursor.execute("INSERT INTO x_plans VALUES (1, 'one')")
        try:
            yield
        finally:
            cursor.execute("DROP TABLE x_plans")
            connection.close()


def widen() -> None:
    """Change a type on another connection, as a migration beside workers does."""
    other: Any = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("ALTER TABLE x_plans ALTER COLUMN name TYPE varchar(99)")
    other.close()


def keep_plan() -> None:
    threshold: int = settings.DATABASES["default"]["OPTIONS"]["prepare_threshold"]
    for _ in range(threshold + 1):
        assert fetch(connection, READ, [1]) == [("one",)]


@on_postgresql
def test_a_plan_is_kept_and_forgotten_after_a_migration(plans: None) -> None:
    """Outside a transaction the statement runs again without a plan."""
    keep_plan()
    assert fetch(connection, PLANS, ["SELECT name FROM x_plans%"]) == [(1,)]
    widen()
    assert fetch(connection, READ, [1]) == [("one",)]
    assert connection.connection.prepare_threshold is None


@on_postgresql
def test_in_a_transaction_only_the_next_one_succeeds(plans: None) -> None:
    keep_plan()
    widen()
    with pytest.raises(NotSupportedError), transaction.atomic():
        fetch(connection, READ, [1])
    with transaction.atomic():
        assert fetch(connection, READ, [1]) == [("one",)]


@on_postgresql
def test_logged_sql_shows_its_values(plans: None) -> None:
    keep_plan()
    with CaptureQueriesContext(connection) as queries:
        fetch(connection, READ, [1])
    assert [q["sql"] for q in queries] == ["SELECT name FROM x_plans WHERE id = 1"]


@pytest.mark.django_db
def test_values_are_bound(db: None) -> None:
    assert fetch(connection, "SELECT %s", ["'%s"]) == [("'%s",)]


class Refusing:
    """A connection of PostgreSQL that refuses a kept plan, then has no plans."""

    vendor, queries_logged = "postgresql", True

    def __init__(self, in_atomic_block: bool) -> None:
        self.in_atomic_block, self.tried = in_atomic_block, 0
        self.connection = SimpleNamespace(prepare_threshold=5)

    def cursor(self) -> Any:
        return nullcontext(self)

    def execute(self, sql: str, values: Any) -> None:
        self.tried += 1
        if self.connection.prepare_threshold is not None:
            raise NotSupportedError("cached plan must not change result type")

    def fetchall(self) -> list[tuple[str]]:
        return [("one",)]


def test_a_refused_plan_is_tried_again_outside_transactions_only() -> None:
    """A transaction is over then; its first error says why."""
    alone, inside = Refusing(False), Refusing(True)
    assert fetch(alone, READ, [1]) == [("one",)]
    with pytest.raises(NotSupportedError, match="cached plan"):
        fetch(inside, READ, [1])
    assert (alone.tried, inside.tried) == (2, 1)
    assert inside.connection.prepare_threshold is None
