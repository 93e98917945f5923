"""The audit's indexes: each searched column has one, and PostgreSQL's are small."""

from __future__ import annotations

import pytest
from django.db import connection

from accounts.models import AuditEvent

pytestmark = pytest.mark.django_db
BY_VALUE = ("action", "actor", "client_id", "token_id", "object")


def definitions() -> list[str]:
    table = AuditEvent._meta.db_table
    query = "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = %s"
    if connection.vendor == "postgresql":
        query = "SELECT indexdef FROM pg_indexes WHERE tablename = %s"
    with connection.cursor() as cursor:
        cursor.execute(query, [table])
        return [str(row[0]).replace('"', "") for row in cursor.fetchall()]


@pytest.mark.parametrize("column", BY_VALUE)
def test_values_have_the_time_in_their_index_on_sqlite_only(column: str) -> None:
    """PostgreSQL stores equal keys once, but no two keys with a time are equal."""
    found = [d for d in definitions() if f"({column}" in d and " WHERE " not in d]
    (definition,) = found
    assert (", at)" in definition) is (connection.vendor == "sqlite")


def test_a_request_is_found_by_its_hash() -> None:
    (definition,) = [d for d in definitions() if "(request_id)" in d]
    assert ("USING hash" in definition) is (connection.vendor == "postgresql")


def test_every_column_that_people_search_by_has_an_index() -> None:
    found = " ".join(definitions())
    for column in (*BY_VALUE, "request_id", "at", "reason", "actor_id"):
        assert f"({column}" in found
