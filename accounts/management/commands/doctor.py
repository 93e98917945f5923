"""`manage.py doctor`: list the problems of this installation and their fixes."""

from __future__ import annotations

import sys
from typing import Any

from django.core import checks
from django.core.management import BaseCommand

from accounts.admin_site import system_status


class Command(BaseCommand):
    """Run every check, database checks included; exit code 1 on errors."""

    help = "Say what is wrong with this installation and how to mend it."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        found = system_status.findings()
        for line in system_status.lines(found):
            self.stdout.write(line)
        if any(message.level >= checks.ERROR for message in found):
            sys.exit(1)
