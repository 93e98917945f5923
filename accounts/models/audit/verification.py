"""Verification: compare the audit with its seals and name the first misfit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import models

from accounts.models.audit.digests import (
    MARK,
    EventUnreadable,
    Row,
    content_hash,
    event_marks,
    events_between,
    rows_between,
)
from accounts.models.audit.events import AuditEvent
from accounts.models.audit.heads import AuditHead
from accounts.models.audit.purges import ACTION, PurgeRecord, records
from accounts.models.signing_keys import SigningKey

Seal = Any
"""An AuditSeal; its module imports this one."""


@dataclass(frozen=True, slots=True)
class VerifiedRange:
    """What verifying one seal showed; `problem` is empty where it fits."""

    number: int
    events: int
    problem: str = ""


class Verification:
    """One walk along the chain.

    `keyed` is false with the KEY_ENCRYPTION_KEY of another installation, which opens
    none of the signing keys: a copy of the database somewhere else. There hashes and
    purges are checked, but not who made the seals. Whoever breaks the signing keys
    for that effect stops all sign-ins, and new keys bring the full check back.
    """

    def __init__(self, seals: models.QuerySet[Any]) -> None:
        self.seals = seals.order_by("number")
        self.keyed = SigningKey.objects.all().any_decryptable()
        self._records: list[PurgeRecord] | None = None

    def run(self, newest: int | None = None) -> Iterator[VerifiedRange]:
        """Each seal, oldest first, until one does not fit; then the chain's end."""
        before = self._trusted(newest)
        seals, problem = self.seals, ""
        if before is not None:
            seals = seals.filter(number__gt=before.number)
            problem = self._newest_purged(before)
        for seal in seals.iterator(chunk_size=100) if not problem else ():
            problem = self.problem_after(before, seal)
            yield VerifiedRange(seal.number, seal.events, problem)
            if problem:
                return
            before = seal
        problem = problem or self.end_problem(before)
        if problem:
            yield VerifiedRange(before.number if before else 0, 0, problem)

    def _trusted(self, newest: int | None) -> Seal | None:
        first = max(self.seals.count() - newest, 0) if newest is not None else 0
        return self.seals[first - 1 : first].first() if first else None

    def _newest_purged(self, until: Seal) -> str:
        """Purged seals come first, so the last of them stands for all."""
        gone = self.seals.filter(purged_at__isnull=False, number__lte=until.number)
        last = gone.last()
        return self._purged(last) if last else ""

    def end_problem(self, last: Seal | None) -> str:
        """What does not fit where the chain begins and ends; `last` is the newest."""
        early = AuditEvent.objects.filter(id__lte=0).order_by("id").first()
        if early is not None:
            return f"event {early.pk} was inserted before the first seal"
        head = AuditHead.objects.first()
        if head is None:
            return "the row that names the newest seal is missing"
        if self.keyed and not head.authentic():
            return "the row that names the newest seal was changed"
        if last is not None and head.number < last.number:
            return f"the row that names the newest seal names {head}, not {last}"
        named = self.seals.filter(number=head.number, digest=head.digest)
        if head.number and not named.exists():
            return f"{head} was the newest and is missing or replaced"
        return ""

    def problem_after(self, before: Seal | None, seal: Seal) -> str:
        """What does not fit, by number and event id; empty if all does."""
        number = before.number + 1 if before else 1
        if seal.number != number:
            return f"seal {number} is missing"
        if seal.digest != seal.compute_digest():
            return f"{seal} was changed"
        if seal.previous != (before.digest if before else ""):
            return f"{seal} does not follow seal {number - 1}: one of them was replaced"
        if seal.after_id != (before.last_id if before else 0):
            return f"{seal} does not begin where seal {number - 1} ends"
        if seal.purged_at is None:
            return self._unpurged(seal)
        if before is not None and not self._gone(before):
            return f"{seal} says it was purged, but {before} was not"
        return self._purged(seal)

    def _unpurged(self, seal: Seal) -> str:
        problem = self._forged(seal) or _content(seal)
        if problem and self._gone(seal):  # A purge was faster.
            return self._purged(self.seals.get(number=seal.number))
        return problem

    def _purged(self, seal: Seal) -> str:
        if forged := self._forged(seal):
            return forged
        if not self._covered(seal):
            return (
                f"{seal} says it was purged, but no {ACTION} event says that "
                "AUDIT_RETENTION dropped its events"
            )
        left = events_between(seal.after_id, seal.last_id).first()
        return f"event {left.pk} was inserted into purged {seal}" if left else ""

    def _gone(self, seal: Seal) -> bool:
        """Whether its events are purged by now; `seal` may have been read before."""
        row = self.seals.filter(number=seal.number, purged_at=None)
        return seal.purged_at is not None or not row.exists()

    def _forged(self, seal: Seal) -> str:
        if not self.keyed or seal.mac == seal.authentication_code():
            return ""
        return f"{seal} was changed or made by somebody without this KEY_ENCRYPTION_KEY"

    def _covered(self, seal: Seal) -> bool:
        """Whether a record says that retention dropped its events."""
        for again in (False, True):
            if again or self._records is None:  # A purge under way writes more.
                self._records = [one for one in records() if self._in_chain(one)]
            if any(one.covers(seal.number, seal.last_at) for one in self._records):
                return True
        return False

    def _in_chain(self, record: PurgeRecord) -> bool:
        last = self.seals.filter(number=record.last_seal, last_id=record.last_event)
        return last.filter(digest=record.last_digest).exists()


def _content(seal: Seal) -> str:
    try:
        rows, hashes = rows_between(seal.after_id, seal.last_id, seal.events + 1)
    except EventUnreadable as error:
        return f"event {error.key} of {seal} was changed: it cannot be read"
    if content_hash(hashes) != seal.content:
        return _named(seal, rows, hashes)
    fit = bytes(seal.marks) == b"".join(event_marks(rows, hashes))
    return "" if fit else f"the marks of {seal} were changed"


def _named(seal: Seal, rows: list[Row], hashes: list[bytes]) -> str:
    """The first event that does not fit, by the marks of the seal."""
    size, marks = MARK * 2, bytes(seal.marks)
    known = [marks[i : i + size] for i in range(0, len(marks), size)]
    sealed = {int.from_bytes(mark[:MARK], "big"): mark for mark in known}
    found = {row[0]: m for row, m in zip(rows, event_marks(rows, hashes), strict=True)}
    for key in sorted(sealed.keys() | found.keys()):
        if key not in found:
            return f"event {key} of {seal} was removed"
        if key not in sealed:
            return f"event {key} was inserted into {seal}"
        if sealed[key] != found[key]:
            return f"event {key} of {seal} was changed"
    return f"the events of {seal} do not fit its hash"
