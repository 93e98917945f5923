"""`manage.py seal_audit`: seal the audit so far; for a timer, every minute or so."""

from __future__ import annotations

from typing import Any

from django.core.management import BaseCommand, CommandError

from accounts.audit.record import record
from accounts.management.arguments import ACTOR
from accounts.models import AuditSeal
from accounts.models.audit.digests import EventUnreadable
from accounts.models.audit.seals import highest_settled_id


class Command(BaseCommand):
    """Seal the settled events and print the digest to store elsewhere."""

    help = "Seal audit events into the hash chain and print its newest digest."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "--reauthenticate",
            action="store_true",
            help="Authenticate every seal with the KEY_ENCRYPTION_KEY of now, after it "
            "was changed or after you have looked into what verify_audit said.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if highest_settled_id() is None:
            raise CommandError(
                "The audit was being written to all the time; nothing was sealed. "
                "Run it again in a moment."
            )
        if options["reauthenticate"]:
            self.reauthenticate()
        try:
            made = AuditSeal.objects.all().seal()
        except EventUnreadable as error:
            raise CommandError(
                f"{error}, so nothing from there on is sealed: somebody wrote that row "
                "past Portico. Look at it in the database, then correct or delete it."
            ) from error
        head = AuditSeal.objects.all().head()
        newest = f"seal {head.number}, digest {head.digest}" if head else "none yet"
        self.stdout.write(f"{made} seals made; the newest is {newest}.")

    def reauthenticate(self) -> None:
        """Record earlier problems as an event: reauthenticating must not hide them."""
        checked = list(AuditSeal.objects.all().verify())
        problem = checked[-1].problem if checked else ""
        done = AuditSeal.objects.all().reauthenticate()
        told = f"{done} seals; before: {problem or 'everything fitted'}"
        record("audit.reauthenticated", actor=ACTOR, object=told)
        self.stdout.write(f"Authenticated {told}.")
