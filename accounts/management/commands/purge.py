"""`manage.py purge`: delete expired rows; for cron or a timer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand
from django.db import connection
from django.utils import timezone

from accounts.audit.record import record
from accounts.http.session_store import SessionStore
from accounts.management.arguments import ACTOR
from accounts.models import (
    AuditHour,
    AuditSeal,
    ImportDraft,
    IssuedToken,
    OAuthClient,
    OAuthDeviceGrant,
    OAuthGrant,
    RevokedToken,
    SigningKey,
    UsedAssertion,
)
from accounts.models.signing_keys import KeyState


class Command(BaseCommand):
    """Delete expired rows and events past AUDIT_RETENTION; safe to repeat."""

    help = "Delete expired tokens, revocations, sessions, and old audit events."

    def handle(self, *args: Any, **options: Any) -> None:
        now = timezone.now()
        counts = {
            "tokens": IssuedToken.objects.all().purge(now),
            "revocations": RevokedToken.objects.all().purge(now),
            "audit events": AuditSeal.objects.all().purge(
                now - settings.AUDIT_RETENTION
            ),
            "unused clients": OAuthClient.objects.all().purge(now),
            "drafts": ImportDraft.objects.all().purge(now),
            "codes": self.delete_codes(now),
            "signing keys retired": self.retire_keys(now),
        }
        IssuedToken.objects.all().drop_successors(now - settings.REFRESH_TOKEN_GRACE)
        SessionStore.clear_expired()
        self.analyze()
        AuditHour.objects.all().purge(now)
        AuditHour.objects.all().roll_up(now)
        summary = ", ".join(f"{count} {what}" for what, count in counts.items())
        record("purge.done", actor=ACTOR, object=summary)
        self.stdout.write(f"Purged {summary}.")

    def delete_codes(self, now: Any) -> int:
        """Delete expired codes, device codes and assertions.

        Codes stay a day longer, so that a replay is recognized.
        """
        day = timedelta(days=1)
        count = OAuthGrant.objects.filter(expires__lt=now - day).delete()[0]
        count += OAuthDeviceGrant.objects.filter(expires__lt=now - day).delete()[0]
        count += UsedAssertion.objects.filter(until__lt=now).delete()[0]
        return int(count)

    def retire_keys(self, now: Any) -> int:
        """Retire keys whose last token has expired."""
        count = 0
        for key in SigningKey.objects.filter(state=KeyState.RETIRING):
            if key.needed_until < now:
                key.move(KeyState.RETIRED)
                record("key.retired", actor=ACTOR, object=f"signing key {key.kid}")
                count += 1
        return count

    def analyze(self) -> None:
        """Run ANALYZE for SQLite's query planner (PostgreSQL runs it by itself)."""
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                cursor.execute("PRAGMA analysis_limit=1000")
                cursor.execute("ANALYZE")
