"""AuditSeal: a hash chain over the audit, so that rewriting it does not go unseen.

Events are written without any hash, for they are on the way of every message; a seal
covers a range of them afterwards. What it protects is in docs/administration.md.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import IntegrityError, OperationalError, connection, models, transaction
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.models.audit import AuditEvent

logger = logging.getLogger(__name__)

SEALED_AT_ONCE = 1000
"""Events in one seal at most."""

COLUMNS = (
    "id",
    "at",
    "action",
    "actor",
    "actor_id",
    "client_id",
    "token_id",
    "address",
    "object",
    "decision",
    "reason",
    "via",
    "outcome",
    "duration_ms",
    "request_id",
    "changes",
)
"""What of an event is sealed: everything."""

MARK = 8
"""Bytes of an event's hash kept in its seal, to name the one that does not fit."""

PATIENCE = "200ms"
"""How long sealing may hold up those who write events (PostgreSQL)."""

Row = tuple[Any, ...]


def canonical(row: Row) -> bytes:
    """One event as bytes, the same on both databases."""
    plain = [
        v.astimezone(UTC).isoformat() if isinstance(v, datetime) else v for v in row
    ]
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def rows_between(after: int, last: int) -> Any:
    """Events with after < id <= last as rows of COLUMNS, oldest first."""
    events = AuditEvent.objects.filter(id__gt=after, id__lte=last).order_by("id")
    return events.values_list(*COLUMNS)


def settled() -> int | None:
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
            cursor.execute(f"SET LOCAL lock_timeout = '{PATIENCE}'")
            cursor.execute(f"LOCK TABLE {table} IN SHARE MODE")
            return newest.first() or 0
    except OperationalError:
        return None


@dataclass(frozen=True, slots=True)
class Checked:
    """What verifying one seal showed; `problem` is empty where it fits."""

    number: int
    events: int
    problem: str = ""


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

    def seal(self, most: int | None = None) -> int:
        """Seal what is settled, at most `most` ranges; return how many were made."""
        until, made = settled(), 0
        while until is not None and (most is None or made < most):
            if not self._seal_next(until):
                break
            made += 1
        return made

    def _seal_next(self, until: int) -> bool:
        head = self.model.objects.head()
        rows = list(rows_between(head.last_id if head else 0, until)[:SEALED_AT_ONCE])
        if not rows:
            return False
        made = self.model.over(rows, head)
        try:
            with transaction.atomic():
                made.save(force_insert=True)
        except IntegrityError:
            return False  # Somebody else was sealing the same range.
        logger.info("Audit sealed up to %s: %s", made.last_id, made.digest)
        return True

    def verify(self, newest: int | None = None) -> Iterator[Checked]:
        """Check each seal against its events, oldest first; stop at a misfit.

        With `newest` only so many, taking the one before them on trust.
        """
        seals = self.order_by("number")
        before: AuditSeal | None = None
        if newest is not None:
            first = max(self.count() - newest, 0)
            before = seals[first - 1 : first].first() if first else None
            seals = seals.filter(number__gt=before.number) if before else seals
        for seal in seals.iterator(chunk_size=100):
            problem = seal.problem_after(before)
            yield Checked(seal.number, seal.events, problem)
            if problem:
                return
            before = seal

    def purge(self, before: datetime) -> int:
        """Drop the events of whole seals older than `before`; return how many.

        Their seals stay, so the chain stays verifiable.
        """
        self.seal()
        gone = 0
        for seal in self.filter(purged_at=None).order_by("number"):
            if seal.last_at >= before:
                break
            gone += seal.purge_events()
        return gone

    seal.queryset_only = seal.alters_data = True  # type: ignore[attr-defined]
    purge.queryset_only = purge.alters_data = True  # type: ignore[attr-defined]


class AuditSeal(models.Model):
    """SHA-256 over the seal before and the events with after_id < id <= last_id."""

    number = models.PositiveIntegerField(_("number"), primary_key=True)
    previous = models.CharField(
        _("previous"),
        max_length=64,
        unique=True,
        help_text=_("Digest of the seal before."),
    )
    after_id = models.BigIntegerField(_("after id"))
    last_id = models.BigIntegerField(_("last id"))
    events = models.PositiveIntegerField(_("events"))
    first_at = models.DateTimeField(_("from"))
    last_at = models.DateTimeField(_("to"))
    content = models.CharField(
        _("content"), max_length=64, help_text=_("SHA-256 of the events.")
    )
    digest = models.CharField(_("digest"), max_length=64, unique=True)
    marks = models.BinaryField(_("marks"), default=b"")
    sealed_at = models.DateTimeField(_("sealed at"), default=timezone.now)
    purged_at = models.DateTimeField(
        _("purged at"),
        null=True,
        blank=True,
        help_text=_("When retention dropped its events."),
    )

    objects = AuditSealQuerySet.as_manager()

    class Meta:
        ordering = ("-number",)
        verbose_name = _("audit seal")
        verbose_name_plural = _("audit seals")

    def __str__(self) -> str:
        return gettext("seal %d") % self.number

    @classmethod
    def over(cls, rows: list[Row], head: AuditSeal | None) -> AuditSeal:
        """The seal (unsaved) of these rows of COLUMNS, after `head`."""
        hashes = [hashlib.sha256(canonical(row)).digest() for row in rows]
        moments = [row[1] for row in rows]
        made = cls(
            number=head.number + 1 if head else 1,
            previous=head.digest if head else "",
            after_id=head.last_id if head else 0,
            last_id=rows[-1][0],
            events=len(rows),
            first_at=min(moments),
            last_at=max(moments),
            content=hashlib.sha256(b"".join(hashes)).hexdigest(),
            marks=b"".join(marks_of(rows, hashes)),
        )
        made.digest = made.computed()
        return made

    def computed(self) -> str:
        """The digest that its own columns ask for."""
        ends = (self.after_id, self.last_id, self.events)
        moments = (self.first_at.astimezone(UTC), self.last_at.astimezone(UTC))
        words = (self.previous, self.number, *ends, *moments, self.content)
        return hashlib.sha256(" ".join(map(str, words)).encode()).hexdigest()

    def problem_after(self, before: AuditSeal | None) -> str:
        """What does not fit, by number and event id; empty if all does."""
        number = before.number + 1 if before else 1
        if self.number != number:
            return f"seal {number} is missing"
        if self.digest != self.computed():
            return f"{self} was changed"
        if before is not None and self.previous != before.digest:
            return f"{self} does not follow {before}: one of them was replaced"
        if before is not None and self.after_id != before.last_id:
            return f"{self} does not begin where {before} ends"
        if self.purged_at is not None:
            return self._purged_problem(before)
        return self._content_problem()

    def _purged_problem(self, before: AuditSeal | None) -> str:
        if before is not None and before.purged_at is None:
            return f"{self} says it was purged, but {before} was not"
        left = rows_between(self.after_id, self.last_id).first()
        return f"event {left[0]} was inserted into purged {self}" if left else ""

    def _content_problem(self) -> str:
        rows = list(rows_between(self.after_id, self.last_id)[: self.events + 1])
        hashes = [hashlib.sha256(canonical(row)).digest() for row in rows]
        if hashlib.sha256(b"".join(hashes)).hexdigest() == self.content:
            return ""
        return self._named(rows, hashes)

    def _named(self, rows: list[Row], hashes: list[bytes]) -> str:
        """The first event that does not fit, by the marks kept."""
        size, kept = MARK * 2, bytes(self.marks)
        known = [kept[i : i + size] for i in range(0, len(kept), size)]
        sealed = {int.from_bytes(mark[:MARK], "big"): mark for mark in known}
        found = {row[0]: m for row, m in zip(rows, marks_of(rows, hashes), strict=True)}
        for key in sorted(sealed.keys() | found.keys()):
            if key not in found:
                return f"event {key} of {self} was removed"
            if key not in sealed:
                return f"event {key} was inserted into {self}"
            if sealed[key] != found[key]:
                return f"event {key} of {self} was changed"
        return f"the events of {self} do not fit its hash"

    def purge_events(self) -> int:
        """Drop its events (retention) and keep the seal; return how many."""
        rows: Any = models.QuerySet(AuditEvent)
        rows = rows.filter(id__gt=self.after_id, id__lte=self.last_id)
        with transaction.atomic():
            gone = int(rows._raw_delete(rows.db))
            self.purged_at, self.marks = timezone.now(), b""
            self.save(update_fields=["purged_at", "marks"])
        return gone


def marks_of(rows: list[Row], hashes: list[bytes]) -> list[bytes]:
    """For each event its id and the beginning of its hash."""
    pairs = zip(rows, hashes, strict=True)
    return [int(row[0]).to_bytes(MARK, "big") + h[:MARK] for row, h in pairs]
