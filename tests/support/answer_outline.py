"""What an answer says and what happened with it, as lines of text."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.messages import get_messages
from django.core import mail

from accounts.models import AuditEvent
from tests.support.page_outline import address, content, steady

COLUMNS = "action actor client_id address object decision reason via outcome".split()


def newest_event() -> int:
    """The id of the newest event; 0 without any."""
    return max(AuditEvent.objects.values_list("pk", flat=True), default=0)


def event_line(event: AuditEvent) -> str:
    shown = [f"{name}={value}" for name in COLUMNS if (value := getattr(event, name))]
    subject = event.subject.partition(":")[0]
    changes = json.dumps(event.changes, sort_keys=True, ensure_ascii=False)
    return steady(f"event {' '.join(shown)} subject={subject} {changes}")


def events_since(last: int) -> list[str]:
    """A line for each event after `last`, in their order."""
    events = AuditEvent.objects.filter(pk__gt=last).order_by("pk")
    return [event_line(event) for event in events]


def answer_outline(answer: Any, last: int) -> str:
    """Status, target, messages, mails, the events after `last`, and the page.

    The mails are taken out of the outbox.
    """
    where = address(answer.get("Location", ""))
    messages = get_messages(answer.wsgi_request)
    said = [address(f"{one.level_tag}: {one}") for one in messages]
    sent = [steady(f"mail {one.to} {one.subject}: {one.body}") for one in mail.outbox]
    mail.outbox.clear()
    recorded = sorted(events_since(last))
    lines = [f"{answer.status_code} {where}".strip(), *said, *sent, *recorded]
    is_page = answer.status_code != 302 and not answer.streaming
    page = content(answer.content.decode()) if is_page else ""
    return "".join(f"  {line}\n" for line in lines) + page
