"""`manage.py export_audit [--form csv|jsonl] [--arguments]`: the audit as a file."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

from django.core.management import BaseCommand, CommandError

from accounts.audit.export import FORMATS, export_events
from accounts.audit.record import record
from accounts.management.arguments import ACTOR
from accounts.models import AuditEvent
from accounts.parsing.moments import day_or_moment


class Command(BaseCommand):
    """Stream events, oldest first, in constant memory; records the export."""

    help = "Write the audit to standard output as CSV or JSON Lines."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "--form",
            choices=sorted(FORMATS),
            default="jsonl",
            help="Format of the lines. Default: jsonl.",
        )
        parser.add_argument(
            "--arguments",
            action="store_true",
            help="Include the recorded arguments of calls.",
        )
        for name, what in (("since", "from"), ("until", "before")):
            parser.add_argument(
                f"--{name}", help=f"Events {what} this day (2026-12-31)."
            )

    def handle(self, *args: Any, **options: Any) -> None:
        events = AuditEvent.objects.order_by("at", "id")
        since, until = options["since"], options["until"]
        events = events.filter(at__gte=day(since)) if since else events
        events = events.filter(at__lt=day(until)) if until else events
        period = f"{since or 'the beginning'} to {until or 'now'}"
        arguments = options["arguments"]
        changes = {"filter": ["", period]}
        via = "--arguments" if arguments else ""
        form = options["form"]
        record("audit.exported", actor=ACTOR, object=form, changes=changes, via=via)
        for piece in export_events(events, form, arguments=arguments):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def day(text: str) -> datetime:
    """Start of the day, or the moment. Raises CommandError."""
    try:
        moment = day_or_moment(text, end=False)
    except ValueError as error:
        raise CommandError(f"{text} is not a date: {error}") from error
    if moment is None:
        raise CommandError(f"{text!r} is not a day; write it as 2026-12-31.")
    return moment
