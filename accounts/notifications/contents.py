"""What a notification says: as a sentence, as JSON for programs and for Slack."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.utils import timezone, translation
from django.utils.translation import gettext as _

from accounts.audit.export import event_by_column
from accounts.http.language import in_english
from accounts.models import AuditFeed, Delivery
from accounts.models.audit.columns import OPEN_COLUMNS
from accounts.models.notifications.kinds import AUDIT, kind_named
from accounts.parsing.text import one_line

LONGEST_SUBJECT = 150


def page_url(delivery: Delivery) -> str:
    """The page of the admin that shows more."""
    path = kind_named(delivery.kind).page(delivery.payload)
    return f"{settings.ISSUER_URL}{path}"


def sentence(delivery: Delivery) -> str:
    """The notification in one sentence, in the current language."""
    return one_line(kind_named(delivery.kind).sentence(delivery.payload), 2000)


def event_body(delivery: Delivery) -> bytes:
    """The body of a signed webhook: type, timestamp and data (Standard Webhooks)."""
    data = dict(delivery.payload)
    at = data.pop("at", delivery.created_at.isoformat())
    with in_english():
        data |= {"text": sentence(delivery), "url": page_url(delivery)}
    return encoded({"type": delivery.kind, "timestamp": at, "data": data})


def audit_body(feed: AuditFeed) -> bytes:
    """The body of a batch of audit events, without arguments of calls.

    Each attempt of the batch has the same body.
    """
    rows = list(feed.events().values_list(*OPEN_COLUMNS))
    events = [event_by_column(row) for row in rows]
    at = events[-1]["at"] if events else timezone.now().isoformat()
    data = {
        "events": events,
        "after": feed.cursor,
        "cursor": feed.until,
        "missed": feed.missed,
    }
    return encoded({"type": AUDIT.name, "timestamp": at, "data": data})


def for_slack(delivery: Delivery) -> bytes:
    """The body for Slack's incoming webhooks, and services that accept their form."""
    with translation.override(settings.PAGE_LANGUAGE):
        text = escaped(sentence(delivery))
        label = escaped(_("Open in Portico"))
    return encoded({"text": f"{text}\n<{page_url(delivery)}|{label}>"})


def escaped(text: str) -> str:
    """Slack's control characters as entities: names must not mention channels."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def for_mail(delivery: Delivery) -> tuple[str, str]:
    """(subject, body) of a mail, in PAGE_LANGUAGE."""
    with translation.override(settings.PAGE_LANGUAGE):
        text = sentence(delivery)
        lines = [text, "", page_url(delivery)]
        if request_id := delivery.payload.get("request_id"):
            lines += ["", _("Request ID: %s") % request_id]
    prefix = settings.ACCOUNT_EMAIL_SUBJECT_PREFIX
    return prefix + text[:LONGEST_SUBJECT], "\n".join(lines) + "\n"


def encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
