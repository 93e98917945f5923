"""Rows made inside the database are rows as the models would have written them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from accounts.models import AuditEvent, IssuedToken, RevokedToken, User
from bench.generated_rows import bare_tables, insert, reset_ids
from mcp_bridge.cache.triggers.install import missing_triggers


@pytest.mark.django_db
def test_columns_hold_what_models_read() -> None:
    """Covers ids, text, times, booleans, UUIDs, JSON and defaults."""
    insert(User, 20, id="5000 + i", username="'u-' || i", is_active="i % 2 = 0")
    day = 86400
    insert(
        IssuedToken,
        20,
        jti="HEX(i)",
        kind="'access'",
        issued_via="'password'",
        user="5000 + i",
        username="'u-' || i",
        client_id="'portico'",
        scope="'mcp'",
        family="UUID(i)",
        issued_at=f"AGO(i * {day})",
        expires_at=f"AGO((i - 10) * {day})",
    )
    insert(AuditEvent, 3, action="'tool.called'", duration_ms="i / 2.0")
    reset_ids(User, IssuedToken, AuditEvent)
    assert User.objects.filter(pk__gte=5000, is_active=True).count() == 10
    assert IssuedToken.objects.filter(username__startswith="u-").live().count() == 10
    row = IssuedToken.objects.get(username="u-7")
    assert len(row.jti) == 32 and row.family.int == 7 and row.user_id == 5007
    assert abs(timezone.now() - row.issued_at - timedelta(days=7)) < timedelta(hours=1)
    events = AuditEvent.objects.filter(action="tool.called").order_by("pk")
    assert [event.duration_ms for event in events] == [0, 0.5, 1]
    assert events[0].changes == {}
    assert User.objects.create_user("after").pk > 5019


@pytest.mark.django_db
def test_triggers_and_indexes_are_restored() -> None:
    """They are dropped for speed and restored, also after an error."""

    def indexes() -> set[str]:
        with connection.cursor() as cursor:
            table = RevokedToken._meta.db_table
            return set(connection.introspection.get_constraints(cursor, table))

    before = indexes()
    with pytest.raises(ZeroDivisionError), bare_tables(RevokedToken):
        assert indexes() < before
        insert(RevokedToken, 2, jti="HEX(i)", until="AGO(-60)")
        raise ZeroDivisionError
    assert indexes() == before and missing_triggers() == []
    assert RevokedToken.objects.filter(jti__endswith=f"{1:024x}").exists()
