"""`manage.py rotate_secrets [--check]`: re-encrypt under the new KEY_ENCRYPTION_KEY."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError

from accounts.audit.record import record
from accounts.crypto.encrypted_columns import ENCRYPTED, Progress
from accounts.management.arguments import ACTOR
from accounts.models import AuditHead, AuditSeal
from accounts.parsing.text import counted

UNREADABLE = (
    "Cannot be decrypted: {values}. Add the key that encrypted them to "
    "KEY_ENCRYPTION_KEY_FALLBACKS and repeat this; nothing was lost."
)
REMAINING = (
    "Still under an older key: {values}. Run manage.py rotate_secrets, then check "
    "again; keep KEY_ENCRYPTION_KEY_FALLBACKS until then."
)


class Command(BaseCommand):
    """Re-encrypt in batches; safe to repeat, also after it was stopped."""

    help = "Re-encrypt everything under the current KEY_ENCRYPTION_KEY."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "--check",
            action="store_true",
            help="Change nothing; exit code 1 while an older key is needed.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        check = options["check"]
        done = "under an older key" if check else "re-encrypted"
        found: dict[str, Progress] = {}
        for label, progress in self.rotated(check):
            found[label] = progress
            self.stdout.write(
                f"{label}: {progress.renewed} {done}, {progress.current} current, "
                f"{progress.unreadable} unreadable"
            )
        renewed = sum(progress.renewed for progress in found.values())
        if renewed and not check:
            parts = [f"{p.renewed} {label}" for label, p in found.items() if p.renewed]
            record("secrets.rotated", actor=ACTOR, object=", ".join(parts))
        unreadable = sum(progress.unreadable for progress in found.values())
        if unreadable:
            raise CommandError(UNREADABLE.format(values=counted(unreadable, "value")))
        if renewed and check:
            raise CommandError(REMAINING.format(values=counted(renewed, "value")))
        if settings.KEY_ENCRYPTION_KEY_FALLBACKS:
            self.stdout.write("KEY_ENCRYPTION_KEY_FALLBACKS can be removed.")

    def rotated(self, check: bool) -> Iterator[tuple[str, Progress]]:
        """(what, progress) of everything that depends on KEY_ENCRYPTION_KEY."""
        for column in ENCRYPTED:
            yield column.label, column.rotate(check=check)
        yield "seals of the audit", self.seals(check)

    def seals(self, check: bool) -> Progress:
        """Replace MACs that are valid under an older key.

        Others were not made by Portico, so `verify_audit` must go on naming them.
        """
        seals = AuditSeal.objects.all()
        progress = Progress(renewed=seals.renew_macs(check=check))
        head = AuditHead.objects.first()
        if head is not None:
            progress.renewed += head.renew_mac(check=check)
        progress.current = seals.count() + (head is not None) - progress.renewed
        return progress
