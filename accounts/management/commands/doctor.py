"""`manage.py doctor`: what is wrong with this installation, and how to mend it."""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.management import BaseCommand


class Command(BaseCommand):
    """Run every check, the database's too; exit code 1 if anything is broken."""

    help = "Say what is wrong with this installation and how to mend it."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        """Look at everything and say it in words."""
        production = settings.ENVIRONMENT == "production"
        found = checks.run_checks(
            databases=["default"], include_deployment_checks=production
        )
        for message in sorted(found, key=lambda m: -m.level):
            word = "broken" if message.level >= checks.ERROR else "look at"
            self.stdout.write(f"{word}: {message.msg}  [{message.id}]")
            if message.hint:
                self.stdout.write(f"  mend: {message.hint}")
        broken = sum(message.level >= checks.ERROR for message in found)
        if broken:
            sys.exit(1)
        self.stdout.write("Nothing is broken." if found else "All is well.")
