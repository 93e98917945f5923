"""Commands of manage.py in this process: their output, refusals and audit events."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts.models import AuditEvent

Event = tuple[str, str, str, str]
"""(actor, action, object, reason)"""


def run_command(*arguments: str) -> str:
    """What the command writes to standard output."""
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def refusal(*arguments: str) -> str:
    """The error of a command that must refuse, and must record nothing."""
    before = AuditEvent.objects.count()
    with pytest.raises(CommandError) as refused:
        run_command(*arguments)
    assert AuditEvent.objects.count() == before
    return str(refused.value)


def new_events(work: Callable[[], Any]) -> list[Event]:
    """The events that `work` records, oldest first."""
    newest = AuditEvent.objects.order_by("-id").values_list("id", flat=True).first()
    work()
    found = AuditEvent.objects.filter(id__gt=newest or 0).order_by("id")
    return list(found.values_list("actor", "action", "object", "reason"))
