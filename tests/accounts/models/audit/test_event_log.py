"""Committed events in the log, one JSON object each, if AUDIT_LOG is on."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction

from accounts.audit.record import record
from accounts.models import AuditEvent, User
from accounts.models.audit.columns import COLUMNS
from accounts.models.audit.event_log import FIELDS
from config.server.logs import AuditFormatter
from mcp_bridge.audit.bulk_insert import CallEvent, insert_events

Lines = list[dict[str, Any]]


class Kept(logging.Handler):
    """Keeps the lines that the audit's handler would write."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(AuditFormatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def log(settings: Any) -> Iterator[Kept]:
    settings.AUDIT_LOG = True
    kept, audit = Kept(), logging.getLogger("portico.audit")
    audit.addHandler(kept)
    yield kept
    audit.removeHandler(kept)


def test_every_column_of_an_event_is_logged() -> None:
    """But recorded arguments, which need a permission of their own."""
    assert set(FIELDS) == set(COLUMNS) - {"id", "at", "arguments"}


@pytest.mark.django_db
def test_an_event_is_a_line_after_its_commit(
    log: Kept, alice: User, django_capture_on_commit_callbacks: Any
) -> None:
    """Line breaks from outside stay inside the line."""
    with django_capture_on_commit_callbacks(execute=True):
        record("role.granted", actor=alice, object="a\nforged", reason="why")
        AuditEvent.objects.bulk_create([AuditEvent(action="session.ended")])
        assert log.lines == []
    first, second = map(json.loads, log.lines)
    assert first.pop("at").endswith("+00:00")
    assert first == {
        "logger": "portico.audit",
        "level": "info",
        "action": "role.granted",
        "actor": "alice",
        "actor_id": alice.pk,
        "object": "a forged",
        "reason": "why",
    }
    assert second["action"] == "session.ended" and "\n" not in "".join(log.lines)


@pytest.mark.django_db
def test_only_committed_events_are_logged(
    log: Kept, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            record("role.granted")
            _ = 1 / 0
    assert log.lines == []


@pytest.mark.django_db
def test_calls_are_logged(log: Kept) -> None:
    at = time.time()
    call = CallEvent(at, "tool.called", "allowed", "granted", actor="bob")
    insert_events([call._replace(arguments='{"policy":"full"}')])
    (line,) = map(json.loads, log.lines)
    assert (line["action"], line["actor"]) == ("tool.called", "bob")
    assert line["decision"] == "allowed" and line["duration_ms"] == 0.0
    assert "arguments" not in line and "policy" not in "".join(log.lines)


@pytest.mark.django_db
def test_nothing_is_logged_unless_asked(
    log: Kept, settings: Any, django_capture_on_commit_callbacks: Any
) -> None:
    settings.AUDIT_LOG = False
    with django_capture_on_commit_callbacks(execute=True):
        record("role.granted")
    insert_events([CallEvent(time.time(), "tool.called", "allowed", "granted")])
    assert log.lines == []
