"""`manage.py verify_audit [--head DIGEST]`: does the audit still fit its seals?"""

from __future__ import annotations

from typing import Any

from django.core.management import BaseCommand, CommandError

from accounts.models import AuditSeal


class Command(BaseCommand):
    """Check every seal against its events; exit code 1 names the first misfit."""

    help = "Check the audit's hash chain and name the first thing that does not fit."

    def add_arguments(self, parser: Any) -> None:
        """A digest noted down before, and how far back."""
        parser.add_argument(
            "--head", help="A digest noted elsewhere; the chain has to contain it."
        )
        parser.add_argument("--newest", type=int, help="Check only so many seals.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Walk the chain."""
        seals = AuditSeal.objects.all()
        head = options["head"]
        if head and not seals.filter(digest=head).exists():
            raise CommandError(f"No seal has the digest {head}: seals were replaced.")
        number = events = 0
        for checked in seals.verify(options["newest"]):
            if checked.problem:
                raise CommandError(f"The audit was tampered with: {checked.problem}.")
            number, events = number + 1, events + checked.events
        purged = seals.filter(purged_at__isnull=False).count()
        self.stdout.write(
            f"{number} seals over {events} events fit ({purged} of the seals stand for "
            "events that retention has dropped)."
        )
