"""`manage.py verify_audit [--head DIGEST]`: check the audit against its seals."""

from __future__ import annotations

from typing import Any

from django.core.management import BaseCommand, CommandError

from accounts.models import AuditEvent, AuditSeal, SigningKey
from accounts.models.audit.purges import records
from accounts.parsing.text import counted


class Command(BaseCommand):
    """Check every seal against its events; exit code 1 names the first problem."""

    help = "Check the audit's hash chain and name the first problem."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "--head", help="A digest stored elsewhere, which the chain must contain."
        )
        parser.add_argument(
            "--newest",
            type=int,
            help="Check only this many of the newest seals (without --head).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        seals = AuditSeal.objects.all()
        self.check_options(options)
        number = events = 0
        for result in seals.verify(options["newest"]):
            if result.problem:
                raise CommandError(f"The audit was tampered with: {result.problem}.")
            number, events = number + 1, events + result.events
        if not number and AuditEvent.objects.exists():
            raise CommandError(
                "The audit has events but no seals to check: run manage.py "
                "seal_audit. If there were seals before, they were removed."
            )
        purged = seals.filter(purged_at__isnull=False).count()
        matching = counted(number, "seal matches", "seals match")
        self.stdout.write(
            f"{matching} {counted(events, 'event')} "
            f"(events of {counted(purged, 'seal')} were deleted by AUDIT_RETENTION)."
        )
        self.print_remarks()

    def check_options(self, options: dict[str, Any]) -> None:
        """Raises CommandError if no seal has the given digest."""
        head = (options["head"] or "").strip().lower()
        if head and options["newest"] is not None:
            raise CommandError("--head checks the whole chain: omit --newest.")
        if options["newest"] is not None and options["newest"] < 1:
            raise CommandError("--newest must be 1 or more.")
        if head and not AuditSeal.objects.filter(digest=head).exists():
            raise CommandError(
                f"No seal has the digest {head}: seals were replaced or removed."
            )

    def print_remarks(self) -> None:
        """Print remarks on a chain without problems."""
        gaps = AuditSeal.objects.all().gaps()
        if gaps:
            self.stdout.write(
                f"Within the seals, {counted(gaps, 'id has', 'ids have')} no event: "
                "the transaction was rolled back, or the event was removed before it "
                "was sealed."
            )
        for days in sorted({record.retention_days for record in records()}):
            self.stdout.write(f"Events were deleted with AUDIT_RETENTION={days}.")
        if not SigningKey.objects.all().any_decryptable():
            self.stderr.write(
                "KEY_ENCRYPTION_KEY decrypts no signing key of this database, so only "
                "hashes were checked, not the authentication of the seals."
            )
