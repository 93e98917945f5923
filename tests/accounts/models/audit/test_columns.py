"""Ids of audit events: text in Python, 16 bytes on PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from accounts.audit.record import record
from accounts.models import AuditEvent
from accounts.models.audit.columns import id_bytes, id_text

HEX = "3f0c1e5a9b7d4826a1c4e07f5d2b9683"
IDS = [
    HEX,
    HEX.upper(),
    "0" * 32,
    "",
    "x",
    "fifteen-letters",
    "sixteen--letters",
    "request-1",
    f"{HEX}0",
    HEX[:31],
    "3f0c1e5a-9b7d-4826-a1c4-e07f5d2b9683",
    "é" * 7 + "x",
    "x" * 64,
]


@pytest.mark.parametrize("text", IDS)
def test_every_id_is_read_as_it_was_written(text: str) -> None:
    stored = id_bytes(text)
    assert id_text(stored) == id_text(memoryview(stored)) == text  # type: ignore[arg-type]
    assert (len(stored) == 16) is (text in (HEX, "0" * 32))


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("", b""),
        ("x", b"\0x"),
        ("é", b"\0\xc3\xa9"),
        ("fifteen-letters", b"\0fifteen-letters\0"),
        ("sixteen--letters", b"\0sixteen--letters"),
        (HEX.upper(), b"\0" + HEX.upper().encode()),
        (HEX, bytes.fromhex(HEX)),
    ],
)
def test_other_text_follows_a_zero_byte(text: str, stored: bytes) -> None:
    """As the migration writes it on PostgreSQL."""
    assert id_bytes(text) == stored


def test_different_ids_are_stored_differently() -> None:
    assert len({id_bytes(text) for text in IDS}) == len(IDS)


@pytest.mark.django_db
@pytest.mark.parametrize("text", IDS)
def test_events_are_found_by_their_ids(text: str) -> None:
    event = record("test.done", token_id=text, request_id=text)
    event.refresh_from_db()
    assert (event.token_id, event.request_id) == (text, text)
    rows = AuditEvent.objects.filter(pk=event.pk)
    assert rows.filter(token_id=text, request_id__in=["other", text]).exists()
    assert not rows.filter(token_id="other").exists()
    assert rows.values_list("token_id", "request_id").get() == (text, text)


@pytest.mark.django_db
@pytest.mark.parametrize("text", IDS)
def test_the_migration_writes_the_same_bytes(text: str) -> None:
    """And back; only PostgreSQL has them."""
    if connection.vendor != "postgresql":
        pytest.skip("text stays text")
    from importlib import import_module

    migration: Any = import_module("accounts.migrations.0007_compact_audit_ids")
    with connection.cursor() as cursor:
        there = migration.TO_BYTES.format("v")
        cursor.execute(f"SELECT {there} FROM (SELECT %s::text AS v) AS s", [text])  # noqa: S608
        stored = bytes(cursor.fetchone()[0])
        assert stored == id_bytes(text)
        back = migration.TO_TEXT.format("v")
        cursor.execute(f"SELECT {back} FROM (SELECT %s::bytea AS v) AS s", [stored])  # noqa: S608
        assert cursor.fetchone()[0] == text
