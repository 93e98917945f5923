"""AuditSeal: a hash chain over the audit, so that rewriting it does not go unseen.

Events are written without any hash, for they are on the way of every message; a seal
covers a range of them afterwards. What it protects is in docs/administration.md.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.db import IntegrityError, OperationalError, connection, models, transaction
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.models.audit.digests import (
    EventUnreadable,
    Row,
    compute_mac,
    content_hash,
    event_marks,
    rows_between,
)
from accounts.models.audit.events import AuditEvent
from accounts.models.audit.heads import AuditHead
from accounts.models.audit.purges import PurgeRecord, retention_days
from accounts.models.audit.verification import Verification, VerifiedRange

logger = logging.getLogger(__name__)

EVENTS_PER_SEAL = 1000
"""Events in one seal at most."""

LOCK_TIMEOUT = "200ms"
"""How long sealing may hold up those who write events (PostgreSQL)."""


def highest_settled_id() -> int | None:
    """The highest id below which no event can appear any more; None: not now.

    SQLite has one writer at a time, so ids are committed in their order. PostgreSQL
    gives ids before it commits: a SHARE lock waits for those who hold one and lets
    nobody take another, for the moment in which the highest is read.
    """
    newest = AuditEvent.objects.order_by("-id").values_list("id", flat=True)
    if connection.vendor != "postgresql":
        return newest.first() or 0
    table = connection.ops.quote_name(AuditEvent._meta.db_table)
    try:
        with transaction.atomic(durable=True), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            cursor.execute(f"LOCK TABLE {table} IN SHARE MODE")
            return newest.first() or 0
    except OperationalError:
        return None


class AuditSealQuerySet(models.QuerySet["AuditSeal"]):
    """Making seals, and checking them."""

    def head(self) -> AuditSeal | None:
        """The newest."""
        return self.order_by("-number").first()

    def unsealed(self, most: int) -> tuple[int, datetime | None]:
        """How many events no seal covers yet (`most` at most), and since when."""
        head = self.head()
        waiting = AuditEvent.objects.filter(id__gt=head.last_id if head else 0)
        oldest = waiting.order_by("id").values_list("at", flat=True).first()
        return waiting.order_by("id")[:most].count(), oldest

    def gaps(self) -> int:
        """How many ids that lie within the seals belong to no event of theirs."""
        ids = models.Sum(models.F("last_id") - models.F("after_id"))
        found = self.aggregate(ids=ids, events=models.Sum("events"))
        return (found["ids"] or 0) - (found["events"] or 0)

    def seal(self, most: int | None = None) -> int:
        """Seal what is settled, at most `most` ranges; return how many were made.

        Raises EventUnreadable at a row that only SQL can have written.
        """
        until, made = highest_settled_id(), 0
        while until is not None and (most is None or made < most):
            if not self._seal_next(until):
                break
            made += 1
        return made

    def _seal_next(self, until: int) -> bool:
        head = self.model.objects.head()
        after = head.last_id if head else 0
        rows, hashes = rows_between(after, until, EVENTS_PER_SEAL)
        if not rows:
            return False
        made = self.model.over(rows, hashes, head)
        try:
            with transaction.atomic():
                made.save(force_insert=True)
                AuditHead.objects.all().advance(head, made)
        except IntegrityError:
            return False  # Somebody else was sealing the same range.
        logger.info("Audit sealed up to %s: %s", made.last_id, made.digest)
        return True

    def verify(self, newest: int | None = None) -> Iterator[VerifiedRange]:
        """Check each seal against its events, oldest first; stop at a misfit.

        With `newest` only so many, taking the one before them on trust, except that
        the last seal whose events are gone is always looked at.
        """
        return Verification(self.all()).run(newest)

    def purge(self, before: datetime) -> int:
        """Drop the events of whole seals older than `before`; return how many.

        Their seals stay, so the chain stays verifiable, and a PurgeRecord says what
        went. Each seal is a transaction: killed anywhere, the next run goes on.
        Raises ValueError for what AUDIT_RETENTION still keeps.
        """
        now = timezone.now()
        if before > now - settings.AUDIT_RETENTION:
            raise ValueError(f"AUDIT_RETENTION keeps events of {before} and later.")
        self._seal_readable()
        record = self._due(before, now)
        if record is None:
            return 0
        record.write()
        self._seal_readable()
        due = self.filter(purged_at=None, number__lte=record.last_seal)
        return sum(seal.purge_events() for seal in due._in_pages())

    def _seal_readable(self) -> None:
        with suppress(EventUnreadable):  # Old events go whatever the new ones are.
            self.seal()

    def _due(self, before: datetime, now: datetime) -> PurgeRecord | None:
        """The seals whose turn it is; None if there are none."""
        columns = ("number", "events", "last_at", "last_id", "digest")
        first, last, events = 0, None, 0
        waiting = self.filter(purged_at=None).order_by("number")
        for row in waiting.values_list(*columns, named=True).iterator():
            if row.last_at >= before:
                break
            first, last, events = first or row.number, row, events + row.events
        if last is None:
            return None
        return PurgeRecord(
            at=now,
            first_seal=first,
            last_seal=last.number,
            events=events,
            last_event=last.last_id,
            last_digest=last.digest,
            before=before,
            retention_days=retention_days(),
        )

    def _in_pages(self) -> Iterator[AuditSeal]:
        """Seals that are written to on the way: a cursor held open would keep SQLite
        at what it has read, and no write is allowed from there.
        """
        rows, last = self.order_by("number").defer("marks"), 0
        while page := list(rows.filter(number__gt=last)[:100]):
            yield from page
            last = page[-1].number

    def reauthenticate(self) -> int:
        """Authenticate every seal with the KEY_ENCRYPTION_KEY of now; return how many.

        The hashes stay as they are: this says that somebody looked at them.
        """
        done = 0
        for seal in self._in_pages():
            seal.mac = seal.authentication_code()
            seal.save(update_fields=["mac"])
            done += 1
        row = AuditHead.objects.first() or AuditHead()
        row.name(self.head())
        row.save()
        return done

    seal.queryset_only = seal.alters_data = True  # type: ignore[attr-defined]
    purge.queryset_only = purge.alters_data = True  # type: ignore[attr-defined]
    reauthenticate.queryset_only = True  # type: ignore[attr-defined]
    reauthenticate.alters_data = True  # type: ignore[attr-defined]


class AuditSeal(models.Model):
    """SHA-256 over the seal before and the events with after_id < id <= last_id."""

    number = models.PositiveIntegerField(_("number"), primary_key=True)
    previous = models.CharField(
        _("previous"),
        max_length=64,
        unique=True,
        help_text=_("The digest of the previous seal."),
    )
    after_id = models.BigIntegerField(_("after ID"))
    last_id = models.BigIntegerField(_("last ID"))
    events = models.PositiveIntegerField(_("events"))
    first_at = models.DateTimeField(_("from"))
    last_at = models.DateTimeField(_("to"))
    content = models.CharField(
        _("content"), max_length=64, help_text=_("The SHA-256 digest of the events.")
    )
    digest = models.CharField(_("digest"), max_length=64, unique=True)
    marks = models.BinaryField(_("marks"), default=b"")
    mac = models.CharField(max_length=64, default="")
    sealed_at = models.DateTimeField(_("sealed at"), default=timezone.now)
    purged_at = models.DateTimeField(
        _("purged at"),
        null=True,
        blank=True,
        help_text=_("The time when retention deleted the events."),
    )

    objects = AuditSealQuerySet.as_manager()

    class Meta:
        ordering = ("-number",)
        verbose_name = _("audit seal")
        verbose_name_plural = _("audit seals")

    def __str__(self) -> str:
        return gettext("seal %d") % self.number

    @classmethod
    def over(
        cls, rows: list[Row], hashes: list[bytes], head: AuditSeal | None
    ) -> AuditSeal:
        """The seal (unsaved) of these rows of COLUMNS, after `head`."""
        moments = [row[1] for row in rows]
        made = cls(
            number=head.number + 1 if head else 1,
            previous=head.digest if head else "",
            after_id=head.last_id if head else 0,
            last_id=rows[-1][0],
            events=len(rows),
            first_at=min(moments),
            last_at=max(moments),
            content=content_hash(hashes),
            marks=b"".join(event_marks(rows, hashes)),
        )
        made.digest = made.compute_digest()
        made.mac = made.authentication_code()
        return made

    def compute_digest(self) -> str:
        """The digest that its own columns ask for."""
        ends = (self.after_id, self.last_id, self.events)
        moments = (self.first_at.astimezone(UTC), self.last_at.astimezone(UTC))
        words = (self.previous, self.number, *ends, *moments, self.content)
        return hashlib.sha256(" ".join(map(str, words)).encode()).hexdigest()

    def authentication_code(self) -> str:
        """The MAC over its digest and the columns that the digest leaves out."""
        return compute_mac("seal", self.digest, self.sealed_at, self.purged_at)

    def purge_events(self) -> int:
        """Drop its events (retention) and keep the seal; return how many."""
        rows: Any = models.QuerySet(AuditEvent)
        rows = rows.filter(id__gt=self.after_id, id__lte=self.last_id)
        unpurged = AuditSeal.objects.filter(number=self.number, purged_at=None)
        with transaction.atomic():
            if not unpurged.select_for_update().exists():
                return 0  # Another purge was faster.
            gone = int(rows._raw_delete(rows.db))
            self.purged_at, self.marks = timezone.now(), b""
            self.mac = self.authentication_code()
            self.save(update_fields=["purged_at", "marks", "mac"])
        return gone
