"""PurgeRecord: the audit event that says which sealed events were purged."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from accounts.models.audit.events import AuditEvent
from accounts.parsing.text import counted

ACTION = "audit.purged"


@dataclass(frozen=True, slots=True)
class PurgeRecord:
    """A range of seals whose events retention may have deleted.

    A purge writes it before the first deletion, so a killed purge leaves no gap without
    a record. The record is an event: it is sealed, and a later purge deletes it. The
    record of that purge covers at least the same seals.
    """

    at: datetime
    first_seal: int
    last_seal: int
    events: int
    last_event: int
    last_digest: str
    before: datetime
    retention_days: int

    def covers(self, number: int, last_at: datetime) -> bool:
        """Whether the seal's events were older than the retention at that time."""
        due = self.at - timedelta(days=self.retention_days)
        return number <= self.last_seal and last_at < self.before <= due

    def write(self) -> None:
        changes = asdict(self) | {"before": self.before.isoformat()}
        del changes["at"]
        AuditEvent(
            at=self.at,
            action=ACTION,
            actor="retention",
            object=f"{counted(self.events, 'event')} up to {self.last_event} (seals "
            f"{self.first_seal} to {self.last_seal})",
            changes=changes,
        ).save()


def records() -> list[PurgeRecord]:
    """Return the valid records in the audit, the newest first."""
    events = AuditEvent.objects.filter(action=ACTION).order_by("-at", "-id")
    rows = events.values_list("at", "changes")
    return [record for record in (_read(*row) for row in rows) if record]


def _read(at: datetime, changes: Any) -> PurgeRecord | None:
    """Parse an event; None if a purge did not write it."""
    try:
        record = PurgeRecord(
            at=at,
            first_seal=int(changes["first_seal"]),
            last_seal=int(changes["last_seal"]),
            events=int(changes["events"]),
            last_event=int(changes["last_event"]),
            last_digest=str(changes["last_digest"]),
            before=datetime.fromisoformat(changes["before"]),
            retention_days=int(changes["retention_days"]),
        )
        record.covers(1, at)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return record if record.retention_days > 0 else None


def retention_days() -> int:
    """Return AUDIT_RETENTION in days."""
    days: int = settings.AUDIT_RETENTION.days
    return days
