"""`manage.py seal_audit`: seal the audit so far; for a timer, every minute or so."""

from __future__ import annotations

from typing import Any

from django.core.management import BaseCommand, CommandError

from accounts.models import AuditSeal
from accounts.models.seals import settled


class Command(BaseCommand):
    """Seal what is settled and print the digest to note down elsewhere."""

    help = "Seal audit events into the hash chain and print its newest digest."

    def handle(self, *args: Any, **options: Any) -> None:
        """Make seals."""
        if settled() is None:
            raise CommandError(
                "The audit was being written to all the time; nothing was sealed. "
                "Run it again in a moment."
            )
        made = AuditSeal.objects.all().seal()
        head = AuditSeal.objects.all().head()
        newest = f"seal {head.number}, digest {head.digest}" if head else "none yet"
        self.stdout.write(f"{made} seals made; the newest is {newest}.")
