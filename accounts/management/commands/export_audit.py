"""`manage.py export_audit [--form csv|jsonl] [--since DAY]`: the audit as a file."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

from django.core.management import BaseCommand, CommandError
from django.utils import timezone
from django.utils.dateparse import parse_date

from accounts.audit.export import FORMATS, export_events
from accounts.audit.record import record
from accounts.management.arguments import ACTOR
from accounts.models import AuditEvent


class Command(BaseCommand):
    """Stream events, oldest first, in constant memory; records the export."""

    help = "Write the audit to standard output as CSV or JSON lines."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--form", choices=sorted(FORMATS), default="jsonl")
        for name, what in (("since", "from"), ("until", "before")):
            parser.add_argument(
                f"--{name}", help=f"Events {what} this day (2026-12-31)."
            )

    def handle(self, *args: Any, **options: Any) -> None:
        found = AuditEvent.objects.order_by("at", "id")
        since, until = options["since"], options["until"]
        found = found.filter(at__gte=day(since)) if since else found
        found = found.filter(at__lt=day(until)) if until else found
        reach = f"{since or 'the beginning'} to {until or 'now'}"
        told = {"filter": ["", reach]}
        record("audit.exported", actor=ACTOR, object=options["form"], changes=told)
        for piece in export_events(found, options["form"]):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def day(text: str) -> datetime:
    """Start of the day. Raises CommandError."""
    try:
        found = parse_date(text)
    except ValueError as error:
        raise CommandError(f"{text} is no date: {error}") from error
    if found is None:
        raise CommandError(f"{text!r} is no day; write it as 2026-12-31.")
    return timezone.make_aware(datetime.combine(found, datetime.min.time()))
