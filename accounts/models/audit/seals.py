"""AuditSeal: a hash chain over the audit that reveals changed or removed events.

Events are written without a hash, because every message waits for its event. A seal
covers a range of them later. docs/administration.md says what seals protect against.
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
    compute_macs,
    content_hash,
    event_marks,
    rows_between,
)
from accounts.models.audit.events import AuditEvent
from accounts.models.audit.heads import AuditHead
from accounts.models.audit.purges import PurgeRecord, retention_days
from accounts.models.audit.verification import Verification, VerifiedRange
from accounts.models.batches import Progress, unreported

logger = logging.getLogger(__name__)

EVENTS_PER_SEAL = 1000
"""The largest number of events in one seal."""

MACS_AT_ONCE = 200
"""Seals whose MACs are renewed in one statement."""

LOCK_TIMEOUT = "200ms"
"""How long sealing may delay the writers of events (PostgreSQL)."""


def highest_settled_id() -> int | None:
    """Return the highest id below which no event can appear; None if unknown now.

    SQLite has one writer at a time, so it commits ids in order. PostgreSQL assigns ids
    before the commit. A SHARE lock waits for open writers and blocks new ones while
    the highest id is read.
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
    def head(self) -> AuditSeal | None:
        """Return the newest seal."""
        return self.order_by("-number").first()

    def missed_since(self, event_id: int) -> bool:
        """Whether sealed events after this id were purged; not for 0, the start."""
        purged = self.exclude(purged_at=None).order_by("-number").first()
        return bool(event_id and purged is not None and purged.last_id > event_id)

    def unsealed(self, most: int) -> tuple[int, datetime | None]:
        """Return the number of unsealed events (at most `most`) and the oldest time."""
        head = self.head()
        waiting = AuditEvent.objects.filter(id__gt=head.last_id if head else 0)
        oldest = waiting.order_by("id").values_list("at", flat=True).first()
        return waiting.order_by("id")[:most].count(), oldest

    def gaps(self) -> int:
        """Return the number of ids within the seals that no sealed event has."""
        ids = models.Sum(models.F("last_id") - models.F("after_id"))
        sums = self.aggregate(ids=ids, events=models.Sum("events"))
        return (sums["ids"] or 0) - (sums["events"] or 0)

    def seal(self, most: int | None = None) -> int:
        """Seal settled events in at most `most` seals; return their number.

        Raises EventUnreadable at a row that raw SQL wrote.
        """
        until, count = highest_settled_id(), 0
        while until is not None and (most is None or count < most):
            if not self._seal_next(until):
                break
            count += 1
        return count

    def _seal_next(self, until: int) -> bool:
        head = self.model.objects.head()
        after = head.last_id if head else 0
        rows, hashes = rows_between(after, until, EVENTS_PER_SEAL)
        if not rows:
            return False
        seal = self.model.from_events(rows, hashes, head)
        try:
            with transaction.atomic():
                seal.save(force_insert=True)
                AuditHead.objects.all().advance(head, seal)
        except IntegrityError:
            return False  # Another process sealed the same range.
        logger.info("Audit sealed up to event %s: %s", seal.last_id, seal.digest)
        return True

    def verify(self, newest: int | None = None) -> Iterator[VerifiedRange]:
        """Check each seal against its events, oldest first; stop at a mismatch.

        With `newest`, check only that many and trust the seal before them. The last
        purged seal is always checked.
        """
        return Verification(self.all()).run(newest)

    def purge(self, before: datetime, progress: Progress = unreported) -> int:
        """Delete the events of whole seals older than `before`; return their number.

        The seals stay, so the chain stays verifiable, and a PurgeRecord names the
        range. Each seal is one transaction: after a kill, the next run continues.
        Raises ValueError if AUDIT_RETENTION still keeps events before `before`.
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
        due, total = self.filter(purged_at=None, number__lte=record.last_seal), 0
        for seal in due._in_pages():
            deleted = seal.purge_events()
            total += deleted
            progress(deleted)
        return total

    def _seal_readable(self) -> None:
        with suppress(EventUnreadable):  # A bad new event must not stop a purge.
            self.seal()

    def _due(self, before: datetime, now: datetime) -> PurgeRecord | None:
        """Return the record of the seals to purge; None if there are none."""
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
        """Yield seals while the caller updates them.

        An open cursor would keep a SQLite snapshot, from which no write is allowed.
        """
        rows, last = self.order_by("number").defer("marks"), 0
        while page := list(rows.filter(number__gt=last)[:100]):
            yield from page
            last = page[-1].number

    def renew_macs(self, *, check: bool = False) -> int:
        """Replace valid MACs of older keys; return their number.

        With `check`, only count. Invalid MACs stay: `verify_audit` names them.
        """
        count, last = 0, 0
        rows = self.order_by("number").defer("marks")
        while page := list(rows.filter(number__gt=last)[:MACS_AT_ONCE]):
            older = [seal for seal in page if seal.has_older_mac()]
            for seal in older:
                seal.mac = seal.authentication_code()
            if older and not check:
                self.model.objects.bulk_update(older, ["mac"])
            count, last = count + len(older), page[-1].number
        return count

    def reauthenticate(self) -> int:
        """Compute every MAC with the current KEY_ENCRYPTION_KEY; return the number.

        The hashes do not change: the operator has verified them before.
        """
        count = 0
        for seal in self._in_pages():
            seal.mac = seal.authentication_code()
            seal.save(update_fields=["mac"])
            count += 1
        row = AuditHead.objects.first() or AuditHead()
        row.point_to(self.head())
        row.save()
        return count

    seal.queryset_only = seal.alters_data = True  # type: ignore[attr-defined]
    purge.queryset_only = purge.alters_data = True  # type: ignore[attr-defined]
    renew_macs.queryset_only = renew_macs.alters_data = True  # type: ignore[attr-defined]
    reauthenticate.queryset_only = True  # type: ignore[attr-defined]
    reauthenticate.alters_data = True  # type: ignore[attr-defined]


class AuditSeal(models.Model):
    """SHA-256 of the previous seal and the events with after_id < id <= last_id."""

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
    def from_events(
        cls, rows: list[Row], hashes: list[bytes], head: AuditSeal | None
    ) -> AuditSeal:
        """Create the unsaved seal of these rows of COLUMNS, after `head`."""
        moments = [row[1] for row in rows]
        seal = cls(
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
        seal.digest = seal.compute_digest()
        seal.mac = seal.authentication_code()
        return seal

    def compute_digest(self) -> str:
        """Return the digest of the current column values."""
        ends = (self.after_id, self.last_id, self.events)
        moments = (self.first_at.astimezone(UTC), self.last_at.astimezone(UTC))
        parts = (self.previous, self.number, *ends, *moments, self.content)
        return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()

    def authentication_code(self) -> str:
        """Return the MAC of the digest and of the columns outside the digest."""
        return self._macs()[0]

    def is_authentic(self) -> bool:
        """Whether the MAC is valid under this KEY_ENCRYPTION_KEY or an older one."""
        return self.mac in self._macs()

    def has_older_mac(self) -> bool:
        """Whether the MAC is valid, but under one of KEY_ENCRYPTION_KEY_FALLBACKS."""
        current, *older = self._macs()
        return self.mac != current and self.mac in older

    def _macs(self) -> list[str]:
        return compute_macs("seal", self.digest, self.sealed_at, self.purged_at)

    def purge_events(self) -> int:
        """Delete the events of this seal (retention); return their number."""
        rows: Any = models.QuerySet(AuditEvent)
        rows = rows.filter(id__gt=self.after_id, id__lte=self.last_id)
        unpurged = AuditSeal.objects.filter(number=self.number, purged_at=None)
        with transaction.atomic():
            if not unpurged.select_for_update().exists():
                return 0  # Another process purged this seal.
            deleted = int(rows._raw_delete(rows.db))
            self.purged_at, self.marks = timezone.now(), b""
            self.mac = self.authentication_code()
            self.save(update_fields=["purged_at", "marks", "mac"])
        return deleted
