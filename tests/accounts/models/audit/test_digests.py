"""The bytes that seals hash: pinned, because old seals must stay valid."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from django.db import OperationalError

from accounts.crypto.encryption import derived_key
from accounts.models import AuditEvent
from accounts.models.audit import digests
from accounts.models.audit.columns import COLUMNS
from accounts.models.audit.digests import (
    ADDED,
    MARK,
    EventUnreadable,
    canonical_json,
    compute_macs,
    content_hash,
    event_bytes,
    event_hash,
    event_marks,
    events_between,
    rows_between,
)
from tests.support.database_prompt import empty_audit

pytestmark = pytest.mark.django_db
AT = datetime(2026, 5, 10, 14, 30, 1, 2, tzinfo=timezone(timedelta(hours=2)))
TEXTS = ("act", "ann", 7, "client", "jti", "192.0.2.1", "é", "denied", "why", "rule")
ROW = (5, AT, *TEXTS, "ok", 1.5, "request", {"b": [1, None], "a": "x"})
BYTES = (
    b'[5,"2026-05-10T12:30:01.000002+00:00","act","ann",7,"client","jti",'
    b'"192.0.2.1","\\u00e9","denied","why","rule","ok",1.5,"request",'
    b'{"a":"x","b":[1,null]}]'
)


def test_the_columns_of_the_digest_keep_their_order() -> None:
    """Another order would invalidate every seal."""
    assert COLUMNS == tuple(field.attname for field in AuditEvent._meta.local_fields)
    assert len(COLUMNS) == len(ROW) + len(ADDED) and len(ROW) == 16
    assert COLUMNS[16:] == tuple(ADDED)


def test_the_bytes_of_an_event_do_not_change() -> None:
    assert event_bytes(ROW) == canonical_json(ROW) == BYTES
    assert event_hash(ROW) == hashlib.sha256(BYTES).digest()


def test_a_column_of_a_later_version_keeps_old_bytes() -> None:
    """Only a value that differs from the default is digested, with its name."""
    assert event_bytes((*ROW, "")) == BYTES
    assert event_bytes((*ROW, "", "")) == BYTES
    assert event_bytes((*ROW, "role:5")) == BYTES[:-1] + b',["subject","role:5"]]'
    recorded = b',["arguments","{}"]]'
    assert event_bytes((*ROW, "", "{}")) == BYTES[:-1] + recorded


@pytest.mark.parametrize("index", range(len(COLUMNS)), ids=COLUMNS)
def test_every_column_changes_the_bytes(index: int) -> None:
    other: Any = AT + timedelta(microseconds=1) if index == 1 else "other"
    row = (*ROW, *ADDED.values())
    changed = (*row[:index], other, *row[index + 1 :])
    assert event_hash(changed) != event_hash(ROW)


@pytest.mark.parametrize("at", [None, "2026-05-10", 0])
def test_an_event_without_a_date_is_refused(at: Any) -> None:
    with pytest.raises(TypeError, match="at is no date"):
        event_bytes((1, at, "x"))


def test_the_hash_of_a_seal_covers_all_hashes_in_order() -> None:
    assert content_hash([b"a", b"b"]) == hashlib.sha256(b"ab").hexdigest()
    assert content_hash([b"b", b"a"]) != content_hash([b"a", b"b"])


def test_a_mark_is_the_id_and_the_start_of_the_hash() -> None:
    marks = event_marks([(5,), (2**40,)], [b"h" * 32, b"12345678" + b"x" * 24])
    assert marks == [b"\0" * 7 + b"\5" + b"h" * 8, b"\0\0\1\0\0\0\0\0" + b"12345678"]
    assert MARK == 8
    with pytest.raises(ValueError, match="zip"):
        event_marks([(5,)], [])


def test_the_code_is_an_hmac_of_the_parts(settings: Any) -> None:
    parts = ("seal", 1, AT, None)
    text = b'["seal",1,"2026-05-10T12:30:01.000002+00:00",null]'
    key = derived_key(b"portico audit seals v1")
    expected = hmac.new(key, text, hashlib.sha256).hexdigest()
    assert compute_macs(*parts) == [expected]
    first = settings.KEY_ENCRYPTION_KEY
    settings.KEY_ENCRYPTION_KEY = "another key of thirty-two characters"
    assert len(compute_macs(*parts)) == 1 and compute_macs(*parts) != [expected]
    settings.KEY_ENCRYPTION_KEY_FALLBACKS = [first]
    assert compute_macs(*parts)[0] != expected == compute_macs(*parts)[1]


@pytest.fixture
def five() -> list[int]:
    """The ids of five events."""
    empty_audit()
    rows = [AuditEvent(action=f"number.{n}") for n in range(5)]
    for row in rows:
        row.save()
    return [row.pk for row in rows]


def test_a_range_excludes_its_start_and_includes_its_end(five: list[int]) -> None:
    found = events_between(five[0], five[3])
    assert [event.pk for event in found] == five[1:4]
    rows, hashes = rows_between(five[0], five[3], 10)
    assert [row[0] for row in rows] == five[1:4]
    assert hashes == [event_hash(row) for row in rows]
    rows, hashes = rows_between(five[0], five[4], 2)
    assert [row[0] for row in rows] == five[1:3] and len(hashes) == 2


def test_the_rows_have_the_columns_of_the_digest(five: list[int]) -> None:
    (row,), _ = rows_between(0, five[0], 1)
    event = AuditEvent.objects.get(pk=five[0])
    assert row == tuple(getattr(event, name) for name in COLUMNS)
    assert row[1].tzinfo == UTC


@pytest.mark.parametrize("error", [ValueError, TypeError, OperationalError])
def test_the_first_unreadable_event_is_named(
    five: list[int], monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    honest = digests.event_hash

    def fails(row: Any) -> bytes:
        if row[0] in five[2:4]:
            raise error
        return honest(row)

    monkeypatch.setattr(digests, "event_hash", fails)
    with pytest.raises(EventUnreadable, match=f"event {five[2]} cannot") as refused:
        rows_between(0, five[4], 10)
    assert refused.value.key == five[2]
    with pytest.raises(EventUnreadable, match=f"event {five[2]} cannot"):
        rows_between(0, five[4], 3)  # It is the last one that is read.
    assert len(rows_between(five[3], five[4], 10)[0]) == 1
    assert len(rows_between(0, five[4], 2)[0]) == 2


def test_an_error_that_no_event_caused_is_not_hidden(
    five: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost connection is no sign of a changed event."""
    calls: list[Any] = []
    honest = digests.event_hash

    def fails_once(row: Any) -> bytes:
        calls.append(row)
        if len(calls) == 1:
            raise OperationalError("connection lost")
        return honest(row)

    monkeypatch.setattr(digests, "event_hash", fails_once)
    with pytest.raises(OperationalError, match="connection lost"):
        rows_between(0, five[4], 10)
