"""The columns of an audit event."""

from __future__ import annotations

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
)
"""Every column of an event, in the order of the digest."""
