"""Digests of audit events for their seals: canonical bytes, hashes and MACs."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

from django.db import Error, models

from accounts.crypto.encryption import accepted_keys
from accounts.models.audit.columns import COLUMNS
from accounts.models.audit.events import AuditEvent

ADDED = {"subject": "", "arguments": ""}
"""Columns of later versions, which are last in COLUMNS, with their defaults.

They must not change the bytes of older rows: only a value that differs from the default
is digested, as a pair of name and value.
"""

MARK = 8
"""Bytes of each event's hash in its seal; they identify an event that was changed."""

PURPOSE = b"portico audit seals v1"

Row = tuple[Any, ...]


class EventUnreadable(Exception):
    """Another program wrote this row: its bytes are not valid text, JSON or date."""

    def __init__(self, key: int) -> None:
        super().__init__(f"event {key} cannot be read")
        self.key = key


def event_bytes(row: Row) -> bytes:
    """Return one event as bytes, identical on both databases. Raises TypeError."""
    if not isinstance(row[1], datetime):  # Django returns None for an invalid date.
        raise TypeError("at is no date")
    first = len(COLUMNS) - len(ADDED)
    added = zip(ADDED.items(), row[first:], strict=False)
    pairs = [(name, value) for (name, default), value in added if value != default]
    return canonical_json((*row[:first], *pairs))


def canonical_json(values: Row) -> bytes:
    """Return compact JSON, with datetimes in UTC. Raises TypeError."""
    plain = [
        v.astimezone(UTC).isoformat() if isinstance(v, datetime) else v for v in values
    ]
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def event_hash(row: Row) -> bytes:
    return hashlib.sha256(event_bytes(row)).digest()


def content_hash(hashes: list[bytes]) -> str:
    """Return the SHA-256 (hex) of these hashes."""
    return hashlib.sha256(b"".join(hashes)).hexdigest()


def event_marks(rows: list[Row], hashes: list[bytes]) -> list[bytes]:
    """Return for each event its id and the first MARK bytes of its hash."""
    pairs = zip(rows, hashes, strict=True)
    return [int(row[0]).to_bytes(MARK, "big") + h[:MARK] for row, h in pairs]


def events_between(after: int, last: int) -> models.QuerySet[AuditEvent]:
    """Return events with after < id <= last, by id."""
    return AuditEvent.objects.filter(id__gt=after, id__lte=last).order_by("id")


def rows_between(after: int, last: int, most: int) -> tuple[list[Row], list[bytes]]:
    """Return the first `most` events with after < id <= last, and their hashes.

    Raises EventUnreadable. SQLite accepts any bytes in any column, so one raw INSERT
    could otherwise stop the sealing of all events with a traceback.
    """
    values = events_between(after, last).values_list(*COLUMNS)
    try:
        rows: list[Row] = list(values[:most])
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


def compute_macs(*parts: Any) -> list[str]:
    """Return the HMAC-SHA256 (hex) under each accepted key, the current key first."""
    text = canonical_json(parts)
    return [
        hmac.new(key, text, hashlib.sha256).hexdigest()
        for key in accepted_keys(PURPOSE)
    ]
