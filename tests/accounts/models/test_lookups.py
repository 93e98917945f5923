"""The lookup `prefix`: case-sensitive, literal, and with an index."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection

from accounts.models import Role
from accounts.models.lookups import Prefix

pytestmark = pytest.mark.django_db
NAMES = ["ab", "aba", "ab%c", "ab_c", "abzz", "ab\U0010fffe", "aB", "AB", "ac", "a"]


@pytest.mark.parametrize("prefix", ["ab", "AB", "ab%", "ab_", "a", "abc", "ab\\"])
def test_a_prefix_is_compared_as_python_does(prefix: str) -> None:
    Role.objects.bulk_create(Role(name=name) for name in NAMES)
    found = Role.objects.filter(name__prefix=prefix).values_list("name", flat=True)
    assert set(found) == {name for name in NAMES if name.startswith(prefix)}


def test_sqlite_reads_a_range() -> None:
    """LIKE with ESCAPE would read the whole table."""
    side = SimpleNamespace(process_lhs=lambda *given: ("column", ["first"]), rhs="ab")
    sql, params = Prefix.as_sqlite(side, None, connection)  # type: ignore[arg-type]
    assert sql == "(column >= %s AND column < %s)"
    assert params == ("first", "ab", "first", "ab\U0010ffff")


def test_other_databases_use_like() -> None:
    side = SimpleNamespace(process_lhs=lambda *given: ("column", ["first"]), rhs="a%b_")
    sql, params = Prefix.as_sql(side, None, connection)  # type: ignore[arg-type]
    assert (sql, params) == ("column LIKE %s", ("first", "a\\%b\\_%"))


@pytest.mark.skipif(connection.vendor != "sqlite", reason="the plan of SQLite")
def test_the_index_is_used() -> None:
    plan: Any = Role.objects.filter(name__prefix="ab").order_by().explain()
    assert "USING INDEX" in plan or "USING COVERING INDEX" in plan
