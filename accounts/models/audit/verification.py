"""Verification: compare the audit with its seals and name the first mismatch."""

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
    """The result for one seal; `problem` is empty if the seal matches."""

    number: int
    events: int
    problem: str = ""


class Verification:
    """One pass over the chain.

    `checks_macs` is false if KEY_ENCRYPTION_KEY decrypts no signing key, as in a copy
    of the database on another installation. Hashes and purges are checked there, MACs
    are not. An attacker who breaks the signing keys to skip the MACs stops all
    sign-ins, and new keys restore the full check.
    """

    def __init__(self, seals: models.QuerySet[Any]) -> None:
        self.seals = seals.order_by("number")
        self.checks_macs = SigningKey.objects.all().any_decryptable()
        self._records: list[PurgeRecord] | None = None

    def run(self, newest: int | None = None) -> Iterator[VerifiedRange]:
        """Yield each seal, oldest first, until one fails; then check the end."""
        before = self._last_trusted(newest)
        seals, problem = self.seals, ""
        if before is not None:
            seals = seals.filter(number__gt=before.number)
            problem = self._newest_purge_problem(before)
        for seal in seals.iterator(chunk_size=100) if not problem else ():
            problem = self.problem_after(before, seal)
            yield VerifiedRange(seal.number, seal.events, problem)
            if problem:
                return
            before = seal
        problem = problem or self.end_problem(before)
        if problem:
            yield VerifiedRange(before.number if before else 0, 0, problem)

    def _last_trusted(self, newest: int | None) -> Seal | None:
        first = max(self.seals.count() - newest, 0) if newest is not None else 0
        return self.seals[first - 1 : first].first() if first else None

    def _newest_purge_problem(self, until: Seal) -> str:
        """Check the last purged seal only: purged seals come before all others."""
        purged = self.seals.filter(purged_at__isnull=False, number__lte=until.number)
        last = purged.last()
        return self._purge_problem(last) if last else ""

    def end_problem(self, last: Seal | None) -> str:
        """Return the mismatch at the chain's ends; `last` is the newest seal."""
        early = AuditEvent.objects.filter(id__lte=0).order_by("id").first()
        if early is not None:
            return f"event {early.pk} was inserted before the first seal"
        head = AuditHead.objects.first()
        if head is None:
            return "the row that names the newest seal is missing"
        if self.checks_macs and not head.is_authentic():
            return "the row that names the newest seal was changed"
        if last is not None and head.number < last.number:
            return f"the row that names the newest seal names {head}, not {last}"
        named = self.seals.filter(number=head.number, digest=head.digest)
        if head.number and not named.exists():
            return f"{head} was the newest and is missing or replaced"
        return ""

    def problem_after(self, before: Seal | None, seal: Seal) -> str:
        """Return the mismatch with its seal or event; empty if all matches."""
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
            return self._content_problem(seal)
        if before is not None and not self._is_purged(before):
            return f"{seal} says it was purged, but {before} was not"
        return self._purge_problem(seal)

    def _content_problem(self, seal: Seal) -> str:
        problem = self._mac_problem(seal) or _events_problem(seal)
        if problem and self._is_purged(seal):  # By another process, meanwhile.
            return self._purge_problem(self.seals.get(number=seal.number))
        return problem

    def _purge_problem(self, seal: Seal) -> str:
        if problem := self._mac_problem(seal):
            return problem
        if not self._has_purge_record(seal):
            return (
                f"{seal} says it was purged, but no {ACTION} event says that "
                "AUDIT_RETENTION dropped its events"
            )
        left = events_between(seal.after_id, seal.last_id).first()
        return f"event {left.pk} was inserted into purged {seal}" if left else ""

    def _is_purged(self, seal: Seal) -> bool:
        """Whether its events are purged now; the object `seal` may be outdated."""
        row = self.seals.filter(number=seal.number, purged_at=None)
        return seal.purged_at is not None or not row.exists()

    def _mac_problem(self, seal: Seal) -> str:
        if not self.checks_macs or seal.is_authentic():
            return ""
        return f"{seal} was changed or made by somebody without this KEY_ENCRYPTION_KEY"

    def _has_purge_record(self, seal: Seal) -> bool:
        """Whether a PurgeRecord of this chain covers the seal."""
        for again in (False, True):
            if again or self._records is None:  # A running purge adds records.
                self._records = [r for r in records() if self._in_chain(r)]
            if any(r.covers(seal.number, seal.last_at) for r in self._records):
                return True
        return False

    def _in_chain(self, record: PurgeRecord) -> bool:
        last = self.seals.filter(number=record.last_seal, last_id=record.last_event)
        return last.filter(digest=record.last_digest).exists()


def _events_problem(seal: Seal) -> str:
    try:
        rows, hashes = rows_between(seal.after_id, seal.last_id, seal.events + 1)
    except EventUnreadable as error:
        return f"event {error.key} of {seal} was changed: it cannot be read"
    if content_hash(hashes) != seal.content:
        return _first_mismatch(seal, rows, hashes)
    equal = bytes(seal.marks) == b"".join(event_marks(rows, hashes))
    return "" if equal else f"the marks of {seal} were changed"


def _first_mismatch(seal: Seal, rows: list[Row], hashes: list[bytes]) -> str:
    """Name the first event that differs from the marks of the seal."""
    size, marks = MARK * 2, bytes(seal.marks)
    known = [marks[i : i + size] for i in range(0, len(marks), size)]
    sealed = {int.from_bytes(mark[:MARK], "big"): mark for mark in known}
    current = {
        row[0]: m for row, m in zip(rows, event_marks(rows, hashes), strict=True)
    }
    for key in sorted(sealed.keys() | current.keys()):
        if key not in current:
            return f"event {key} of {seal} was removed"
        if key not in sealed:
            return f"event {key} was inserted into {seal}"
        if sealed[key] != current[key]:
            return f"event {key} of {seal} was changed"
    return f"the events of {seal} do not fit its hash"
