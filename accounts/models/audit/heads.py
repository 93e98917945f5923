"""AuditHead: names the newest seal, so that removed seals are noticed."""

from __future__ import annotations

from typing import Protocol

from django.db import models

from accounts.models.audit.digests import compute_macs


class Numbered(Protocol):
    """The part of AuditSeal that this module needs; importing it would be a cycle."""

    number: int
    digest: str


class AuditHeadQuerySet(models.QuerySet["AuditHead"]):
    def advance(self, before: Numbered | None, newest: Numbered) -> None:
        """Point to `newest` if the row points to `before`; else change nothing.

        A row that does not match proves that seals were removed. Raising an error
        instead would let the attacker stop the sealing of later events.
        """
        row = self.first()
        if row is None or not row.is_authentic() or not row.points_to(before):
            return
        row.point_to(newest)
        row.save()

    advance.queryset_only = advance.alters_data = True  # type: ignore[attr-defined]


class AuditHead(models.Model):
    """One row, inserted by a migration; its MAC needs KEY_ENCRYPTION_KEY.

    An attacker could restore an old copy of it; `verify_audit --head` detects that.
    """

    number = models.PositiveIntegerField(default=0)
    digest = models.CharField(max_length=64, blank=True)
    mac = models.CharField(max_length=64)

    objects = AuditHeadQuerySet.as_manager()

    def __str__(self) -> str:
        return f"seal {self.number}"

    def is_authentic(self) -> bool:
        """Whether the MAC is valid under this KEY_ENCRYPTION_KEY or an older one."""
        return self.mac in self._macs()

    def renew_mac(self, *, check: bool = False) -> bool:
        """Replace the valid MAC of an older key; with `check`, only say so."""
        current, *older = self._macs()
        outdated = self.mac != current and self.mac in older
        if outdated and not check:
            self.mac = current
            self.save(update_fields=["mac"])
        return outdated

    def points_to(self, seal: Numbered | None) -> bool:
        """Whether this seal is the newest by this row; None means no seal yet."""
        expected = (seal.number, seal.digest) if seal else (0, "")
        return (self.number, self.digest) == expected

    def point_to(self, seal: Numbered | None) -> None:
        """Set the newest seal (None: no seal yet) without saving."""
        self.number, self.digest = (seal.number, seal.digest) if seal else (0, "")
        self.mac = self._mac()

    def _mac(self) -> str:
        return self._macs()[0]

    def _macs(self) -> list[str]:
        return compute_macs("head", self.number, self.digest)
