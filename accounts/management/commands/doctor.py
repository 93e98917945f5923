"""`manage.py doctor`: list the problems of this installation and their fixes."""

from __future__ import annotations

import logging
import sys
from typing import Any

from django.core import checks

from accounts.admin_site import system_status
from accounts.management.listing import ListingCommand
from accounts.oauth.clients.document_report import document_lines


class Command(ListingCommand):
    """Run every check, database checks included; exit code 1 on errors.

    Without errors, also fetch the documents of well-known clients.
    """

    help = "List the problems of this installation and their fixes."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        results = system_status.findings()
        if options["json"]:
            self.report(options, [as_data(message) for message in results], [])
            if any(message.level >= checks.ERROR for message in results):
                sys.exit(1)
            return
        for line in system_status.report_lines(results):
            self.stdout.write(line)
        if any(message.level >= checks.ERROR for message in results):
            sys.exit(1)
        # Only here: the checks also run for pages, which must not wait for other hosts.
        for line in document_lines():
            self.stdout.write(line)


def as_data(message: checks.CheckMessage) -> dict[str, str]:
    """A finding as JSON, with its fix."""
    level = logging.getLevelName(message.level).lower()
    words = {"level": level, "problem": str(message.msg)}
    return {"id": message.id or "", **words, "fix": str(message.hint or "")}
