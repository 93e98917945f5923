"""What the audit's seals are made of: rows as bytes, their hashes, and a key's MAC."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

from django.db import Error, models

from accounts.crypto.encryption import derived_key
from accounts.models.audit.events import AuditEvent

COLUMNS = (
    "id",
    "at",
    "action",
    "actor",
    "actor_id",
    "client_id",
    "token_id",
    "address",
    "object",
    "decision",
    "reason",
    "via",
    "outcome",
    "duration_ms",
    "request_id",
    "changes",
)
"""Every column of an event, in the order in which it is digested.

A column added later must leave the bytes of older rows as they are: digest it as a
pair of name and value, and only where it differs from its default.
"""

MARK = 8
"""Bytes of an event's hash that its seal holds, to name the one that does not fit."""

PURPOSE = b"portico audit seals v1"

Row = tuple[Any, ...]


class EventUnreadable(Exception):
    """A row that no code of ours wrote: its bytes are no text, no JSON or no date."""

    def __init__(self, key: int) -> None:
        super().__init__(f"event {key} cannot be read")
        self.key = key


def event_bytes(row: Row) -> bytes:
    """One event as bytes, the same on both databases. Raises TypeError."""
    if not isinstance(row[1], datetime):  # Django reads a date it cannot parse as None.
        raise TypeError("at is no date")
    return canonical_json(row)


def canonical_json(values: Row) -> bytes:
    """Compact JSON of them, moments in UTC. Raises TypeError."""
    plain = [
        v.astimezone(UTC).isoformat() if isinstance(v, datetime) else v for v in values
    ]
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def event_hash(row: Row) -> bytes:
    """SHA-256 of one event."""
    return hashlib.sha256(event_bytes(row)).digest()


def content_hash(hashes: list[bytes]) -> str:
    """SHA-256 of these events' hashes."""
    return hashlib.sha256(b"".join(hashes)).hexdigest()


def event_marks(rows: list[Row], hashes: list[bytes]) -> list[bytes]:
    """For each event its id and the beginning of its hash."""
    pairs = zip(rows, hashes, strict=True)
    return [int(row[0]).to_bytes(MARK, "big") + h[:MARK] for row, h in pairs]


def events_between(after: int, last: int) -> models.QuerySet[AuditEvent]:
    """Events with after < id <= last, oldest first."""
    return AuditEvent.objects.filter(id__gt=after, id__lte=last).order_by("id")


def rows_between(after: int, last: int, most: int) -> tuple[list[Row], list[bytes]]:
    """The first `most` events with after < id <= last, and their hashes.

    Raises EventUnreadable. SQLite takes any bytes in any column, so somebody at its
    prompt could otherwise stop the sealing of everybody's events with a traceback.
    """
    found = events_between(after, last).values_list(*COLUMNS)
    try:
        rows: list[Row] = list(found[:most])
        return rows, [event_hash(row) for row in rows]
    except (ValueError, TypeError, Error) as error:
        key = _unreadable(after, last, most)
        if key is None:
            raise
        raise EventUnreadable(key) from error


def _unreadable(after: int, last: int, most: int) -> int | None:
    for key in events_between(after, last).values_list("id", flat=True)[:most]:
        try:
            event_hash(AuditEvent.objects.values_list(*COLUMNS).get(id=key))
        except (ValueError, TypeError, Error):
            return int(key)
    return None


def compute_mac(*parts: Any) -> str:
    """HMAC-SHA256 of these parts under a key that only KEY_ENCRYPTION_KEY gives."""
    key = derived_key(PURPOSE)
    return hmac.new(key, canonical_json(parts), hashlib.sha256).hexdigest()
