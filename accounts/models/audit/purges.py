"""PurgeRecord: the audit event that says which sealed events retention has dropped."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from accounts.models.audit.events import AuditEvent

ACTION = "audit.purged"


@dataclass(frozen=True, slots=True)
class PurgeRecord:
    """A range of seals whose events may be gone, and why that was allowed.

    It is written before the first of them goes, so a purge that was killed leaves no
    gap without a record. The record is an event like others: sealed, and purged in
    its turn by a run whose own record names at least as many seals.
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
        """Whether a seal's events were old enough for the retention of that day."""
        due = self.at - timedelta(days=self.retention_days)
        return number <= self.last_seal and last_at < self.before <= due

    def write(self) -> None:
        """Add it to the audit."""
        changes = asdict(self) | {"before": self.before.isoformat()}
        del changes["at"]
        AuditEvent(
            at=self.at,
            action=ACTION,
            actor="retention",
            object=f"{self.events} events up to {self.last_event} (seals "
            f"{self.first_seal} to {self.last_seal})",
            changes=changes,
        ).save()


def records() -> list[PurgeRecord]:
    """Those in the audit, the newest first."""
    found = AuditEvent.objects.filter(action=ACTION).order_by("-at", "-id")
    rows = found.values_list("at", "changes")
    return [one for one in (_read(at, changes) for at, changes in rows) if one]


def _read(at: datetime, changes: Any) -> PurgeRecord | None:
    """None for an event of that name which no purge wrote."""
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
    """AUDIT_RETENTION as it is now."""
    days: int = settings.AUDIT_RETENTION.days
    return days
