"""`manage.py verify_audit [--head DIGEST]`: check the audit against its seals."""

from __future__ import annotations

from typing import Any

from django.core.management import BaseCommand, CommandError

from accounts.models import AuditEvent, AuditSeal, SigningKey
from accounts.models.audit.purges import records


class Command(BaseCommand):
    """Check every seal against its events; exit code 1 names the first problem."""

    help = "Check the audit's hash chain and name the first thing that does not fit."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "--head", help="A digest noted elsewhere; the chain has to contain it."
        )
        parser.add_argument(
            "--newest", type=int, help="Check only so many seals (without --head)."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        seals = AuditSeal.objects.all()
        self.look_for_head(options)
        number = events = 0
        for checked in seals.verify(options["newest"]):
            if checked.problem:
                raise CommandError(f"The audit was tampered with: {checked.problem}.")
            number, events = number + 1, events + checked.events
        if not number and AuditEvent.objects.exists():
            raise CommandError(
                "There are events and no seals, so nothing can be checked: run "
                "manage.py seal_audit. If there were seals before, they were removed."
            )
        purged = seals.filter(purged_at__isnull=False).count()
        self.stdout.write(
            f"{number} seals over {events} events fit ({purged} of the seals stand for "
            "events that retention has dropped)."
        )
        self.remarks()

    def look_for_head(self, options: dict[str, Any]) -> None:
        """Raises CommandError if no seal has the given digest."""
        head = (options["head"] or "").strip().lower()
        if head and options["newest"] is not None:
            raise CommandError("--head is for the whole chain: leave away --newest.")
        if options["newest"] is not None and options["newest"] < 1:
            raise CommandError("--newest: write 1 or more.")
        if head and not AuditSeal.objects.filter(digest=head).exists():
            raise CommandError(f"No seal has the digest {head}: seals were replaced.")

    def remarks(self) -> None:
        """Print remarks on a chain without problems."""
        gaps = AuditSeal.objects.all().gaps()
        if gaps:
            self.stdout.write(
                f"{gaps} ids within the seals have no event: their transaction was "
                "rolled back, or they were removed before they were sealed."
            )
        for days in sorted({record.retention_days for record in records()}):
            self.stdout.write(f"Events were dropped with AUDIT_RETENTION={days}.")
        if not SigningKey.objects.all().any_decryptable():
            self.stderr.write(
                "This KEY_ENCRYPTION_KEY opens no signing key of this database, so "
                "only hashes were checked, not who made the seals."
            )
