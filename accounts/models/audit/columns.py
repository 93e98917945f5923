"""The columns of an audit event, and the type of those with random ids."""

from __future__ import annotations

import re
from typing import Any

from django.db import models

HEX_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
RAW_LENGTH = 16
"""Bytes of an id of 32 hex digits."""

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
    "subject",
    "arguments",
)
"""Every column of an event, in the order of the digest."""
OPEN_COLUMNS = tuple(name for name in COLUMNS if name != "arguments")
"""Columns for everybody who may view the audit, and for the log."""


class IdField(models.CharField):  # type: ignore[type-arg]
    """Text that is usually 32 hex digits: PostgreSQL stores those as 16 bytes.

    Other text is UTF-8 after a zero byte, and never 16 bytes long. SQLite stores text.
    `encode(token_id, 'hex')` shows an id in SQL.
    """

    def db_type(self, connection: Any) -> str | None:
        compact = connection.vendor == "postgresql"
        return "bytea" if compact else super().db_type(connection)

    def get_db_prep_value(
        self, value: Any, connection: Any, prepared: bool = False
    ) -> Any:
        text = super().get_db_prep_value(value, connection, prepared)
        compact = connection.vendor == "postgresql" and isinstance(text, str)
        return id_bytes(text) if compact else text

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return value if value is None or isinstance(value, str) else id_text(value)


def id_bytes(text: str) -> bytes:
    """The stored form of an id."""
    if HEX_ID.fullmatch(text):
        return bytes.fromhex(text)
    marked = b"\0" + text.encode() if text else b""
    return marked + b"\0" if len(marked) == RAW_LENGTH else marked


def id_text(stored: bytes) -> str:
    """The id of its stored form."""
    raw = bytes(stored)
    return raw.hex() if len(raw) == RAW_LENGTH else raw.strip(b"\0").decode()
