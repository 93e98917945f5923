"""`manage.py purge`: delete expired rows; for cron or a timer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError
from django.db import DatabaseError, connection
from django.utils import timezone

from accounts.audit.record import record
from accounts.management.arguments import ACTOR
from accounts.management.errors import database_remedy
from accounts.models import (
    AuditHour,
    AuditSeal,
    Delivery,
    ImportDraft,
    IssuedToken,
    OAuthClient,
    OAuthDeviceGrant,
    OAuthGrant,
    RevokedToken,
    SigningKey,
    UsedAssertion,
)
from accounts.models.batches import Progress, delete_in_batches, unreported
from accounts.models.browser_sessions import purge_sessions
from accounts.models.signing_keys import KeyState

logger = logging.getLogger(__name__)

REPORT_EVERY = 5.0
"""Seconds between two lines of progress."""

Step = tuple[str, Callable[[Progress], object]]
"""What is deleted, and the function that does it."""


def in_words(count: int, plural: str) -> str:
    """`1 token`, `2,000 tokens`."""
    return f"{count:,} {plural.removesuffix('s') if count == 1 else plural}"


class Command(BaseCommand):
    """Delete expired rows and events past AUDIT_RETENTION; safe to repeat.

    A step that fails does not stop the others. Rows are deleted in batches, so an
    interrupted purge continues at the next run.
    """

    help = "Delete expired tokens, revocations, sessions, and old audit events."

    def handle(self, *args: Any, **options: Any) -> None:
        now = timezone.now()
        counts: dict[str, int] = {}
        failed: dict[str, str] = {}
        for name, step in self.deletions(now):
            counts[name] = 0
            self.run(name, step, counts, failed)
        for name, step in self.upkeep(now):
            self.run(name, step, {name: 0}, failed)
        summary = ", ".join(in_words(count, what) for what, count in counts.items())
        if failed:
            self.report_failure(summary, failed)
        record("purge.done", actor=ACTOR, object=summary)
        self.stdout.write(f"Purged {summary}.")

    def deletions(self, now: datetime) -> Iterator[Step]:
        """The steps whose rows are counted."""
        retained = now - settings.AUDIT_RETENTION
        yield "tokens", lambda told: IssuedToken.objects.all().purge(now, told)
        yield "revocations", lambda told: RevokedToken.objects.all().purge(now, told)
        yield "audit events", lambda told: AuditSeal.objects.all().purge(retained, told)
        yield "unused clients", lambda told: OAuthClient.objects.all().purge(now, told)
        yield "drafts", lambda told: ImportDraft.objects.all().purge(now, told)
        yield "notifications", lambda told: Delivery.objects.all().purge(now, told)
        yield "sessions", lambda told: purge_sessions(now, told)
        yield "codes", lambda told: self.delete_codes(now, told)
        yield "retired signing keys", lambda told: told(self.retire_keys(now))

    def upkeep(self, now: datetime) -> Iterator[Step]:
        """The other steps."""
        grace, hours = now - settings.REFRESH_TOKEN_GRACE, AuditHour.objects.all()
        yield "successors", lambda _: IssuedToken.objects.all().drop_successors(grace)
        yield "statistics", lambda _: (hours.purge(now), hours.roll_up(now))
        yield "planner", lambda _: self.analyze()

    def run(
        self,
        name: str,
        step: Callable[[Progress], object],
        counts: dict[str, int],
        failed: dict[str, str],
    ) -> None:
        """Run one step; note its rows, also those before a failure, and its error."""
        reported = time.monotonic()

        def progress(rows: int) -> None:
            nonlocal reported
            counts[name] += rows
            if time.monotonic() - reported >= REPORT_EVERY:
                reported = time.monotonic()
                self.stdout.write(f"{in_words(counts[name], name)} so far ...")
                self.stdout.flush()

        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
        try:
            step(progress)
        except DatabaseError as error:
            failed[name] = database_remedy(error)
        except Exception:  # A defect of one step must not stop the others.
            logger.exception("The step %s of purge failed", name)
            failed[name] = "see the log"

    def report_failure(self, summary: str, failed: dict[str, str]) -> None:
        """Record what was purged nevertheless. Raises CommandError."""
        names = ", ".join(failed)
        try:
            record("purge.failed", actor=ACTOR, object=summary, reason=names)
        except DatabaseError as error:
            logger.error("The failed purge was not recorded: %s", error)
        details = "\n".join(f"  {name}: {text}" for name, text in failed.items())
        raise CommandError(f"Purged {summary}.\nThese steps failed:\n{details}")

    def delete_codes(self, now: datetime, progress: Progress = unreported) -> int:
        """Delete expired codes, device codes and assertions.

        Codes stay a day longer, so that a replay is recognized.
        """
        day_ago = now - timedelta(days=1)
        codes = OAuthGrant.objects.filter(expires__lt=day_ago)
        devices = OAuthDeviceGrant.objects.filter(expires__lt=day_ago)
        assertions = UsedAssertion.objects.filter(until__lt=now)
        count = delete_in_batches(codes, "pk", progress)
        count += delete_in_batches(devices, "pk", progress)
        return count + delete_in_batches(assertions, "until", progress)

    def retire_keys(self, now: datetime) -> int:
        """Retire keys whose last token has expired."""
        count = 0
        for key in SigningKey.objects.filter(state=KeyState.RETIRING):
            if key.needed_until < now:
                key.move(KeyState.RETIRED)
                about = f"signing key {key.kid}"
                record("key.retired", actor=ACTOR, object=about, subject=key)
                count += 1
        return count

    def analyze(self) -> None:
        """Run ANALYZE for SQLite's query planner (PostgreSQL runs it by itself)."""
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                cursor.execute("PRAGMA analysis_limit=1000")
                cursor.execute("ANALYZE")
