"""Log lines: text or JSON, with the request id, escaped.

All code logs through the standard library; structlog only formats the records.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import structlog
from structlog.types import EventDict, Processor

from mcp_bridge.http.request_id import request_id

KEYS = re.compile(r"(/accounts/password/reset/key/)[^/\s]+")
"""The path of a password reset contains its key, and Django logs paths."""


def without_keys(text: str) -> str:
    """`text` with the keys of password resets replaced in its paths."""
    return KEYS.sub(r"\1-", text)


def without_secrets(logger: Any, method: str, event: EventDict) -> EventDict:
    """Clean message and traceback of every logger, including those of libraries."""
    parts = {name: event[name] for name in ("event", "exception") if event.get(name)}
    return {**event, **{n: without_keys(str(text)) for n, text in parts.items()}}


def with_request(logger: Any, method: str, event: EventDict) -> EventDict:
    """Add the id of the current request, if there is one."""
    name = request_id.get()
    return {**event, "request_id": name} if name else event


def without_refusals(logger: Any, method: str, event: EventDict) -> EventDict:
    """Leave out the traceback of a request that Django refuses.

    Anybody can send it, with a foreign Host for example, and no code of ours failed.
    """
    if str(event["logger"]).startswith("django.security."):
        event.pop("exc_info", None)
    return event


def escaped(text: str) -> str:
    """`text` on one line: control characters become escape sequences."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def line(logger: Any, method: str, event: EventDict) -> str:
    """`time LEVEL logger: text [request id]`, then a traceback with marked lines.

    Only the first line of a record begins with a time, so text from outside cannot
    look like a record.
    """
    level = str(event["level"]).upper()
    text = f"{event['timestamp']} {level} {event['logger']}: {escaped(event['event'])}"
    if "request_id" in event:
        text += f" [{event['request_id']}]"
    traceback = str(event.get("exception") or "")
    marked = [f"  | {escaped(part)}" for part in traceback.splitlines()]
    return "\n".join([text, *marked])


class AuditFormatter(logging.Formatter):
    """One JSON object per audit event, whatever LOG_FORMAT is."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "audit", {"text": record.getMessage()})
        named = {"logger": record.name, "level": record.levelname.lower()}
        return json.dumps(named | fields, default=str)


WRITERS: dict[str, Processor] = {
    "line": line,
    "json": structlog.processors.JSONRenderer(sort_keys=True),
}


def formatter(layout: str) -> structlog.stdlib.ProcessorFormatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            with_request,
            without_refusals,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            without_secrets,
            WRITERS[layout],
        ],
    )
