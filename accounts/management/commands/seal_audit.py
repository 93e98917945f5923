"""`manage.py seal_audit`: seal the audit so far; for a timer, every minute or so."""

from __future__ import annotations

from typing import Any

from django.core.management import BaseCommand, CommandError

from accounts.audit.record import record
from accounts.management.arguments import ACTOR
from accounts.models import AuditSeal
from accounts.models.audit.digests import EventUnreadable
from accounts.models.audit.seals import highest_settled_id
from accounts.parsing.text import counted


class Command(BaseCommand):
    """Seal the settled events and print the digest to store elsewhere."""

    help = "Seal audit events into the hash chain and print its newest digest."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "--reauthenticate",
            action="store_true",
            help="Authenticate every seal with the current KEY_ENCRYPTION_KEY, after "
            "it changed or after you have investigated a problem of verify_audit.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if highest_settled_id() is None:
            raise CommandError(
                "Nothing was sealed, because transactions are writing to the audit. "
                "Try again in a moment."
            )
        if options["reauthenticate"]:
            self.reauthenticate()
        try:
            count = AuditSeal.objects.all().seal()
        except EventUnreadable as error:
            raise CommandError(
                f"{error}, so events from there on cannot be sealed. Portico did not "
                "write that row: inspect it in the database, then correct or delete it."
            ) from error
        head = AuditSeal.objects.all().head()
        newest = f"seal {head.number}, digest {head.digest}" if head else "none"
        self.stdout.write(f"{counted(count, 'seal')} added; newest: {newest}.")

    def reauthenticate(self) -> None:
        """Record earlier problems as an event: reauthenticating must not hide them."""
        results = list(AuditSeal.objects.all().verify())
        problem = results[-1].problem if results else ""
        count = AuditSeal.objects.all().reauthenticate()
        summary = f"{counted(count, 'seal')}; before: {problem or 'no problem'}"
        record("audit.reauthenticated", actor=ACTOR, object=summary)
        self.stdout.write(f"Authenticated {summary}.")
