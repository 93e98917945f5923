"""Committed audit events as lines of the log, if AUDIT_LOG is on.

config/server/logs.py writes each as one JSON object. Events hold no secrets: tokens
appear as their ids, and the recorded arguments of calls are left out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from django.conf import settings

from accounts.models.audit.columns import OPEN_COLUMNS

logger = logging.getLogger("portico.audit")
FIELDS = tuple(name for name in OPEN_COLUMNS if name not in ("id", "at"))


def log_events(events: Iterable[Any]) -> None:
    """Log events whose rows are committed: AuditEvent rows or their raw form."""
    if not settings.AUDIT_LOG:
        return
    for event in events:
        values = {name: getattr(event, name, None) for name in FIELDS}
        fields = {name: v for name, v in values.items() if v not in ("", None, {})}
        logger.info("audit", extra={"audit": {"at": utc(event.at), **fields}})


def utc(at: datetime | float) -> str:
    """ISO 8601 in UTC, of a datetime or of seconds since the epoch."""
    moment = at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
    return moment.astimezone(UTC).isoformat()
