"""AuditHead: which seal is the newest, so that removing the last ones shows."""

from __future__ import annotations

from typing import Protocol

from django.db import models

from accounts.models.audit.digests import compute_mac


class Numbered(Protocol):
    """A seal, as far as this file needs one."""

    number: int
    digest: str


class AuditHeadQuerySet(models.QuerySet["AuditHead"]):
    """Moving it on."""

    def advance(self, before: Numbered | None, newest: Numbered) -> None:
        """Name `newest` if `before` is what the row names; else leave it as it is.

        A row that does not fit is what shows that seals were removed. Refusing to
        seal would let whoever removed them stop the sealing of what comes next.
        """
        row = self.first()
        if row is None or not row.authentic() or not row.names(before):
            return
        row.name(newest)
        row.save()

    advance.queryset_only = advance.alters_data = True  # type: ignore[attr-defined]


class AuditHead(models.Model):
    """One row, made by a migration. Without KEY_ENCRYPTION_KEY nobody writes another;
    an old copy of it can be put back, which `verify_audit --head` finds.
    """

    number = models.PositiveIntegerField(default=0)
    digest = models.CharField(max_length=64, blank=True)
    mac = models.CharField(max_length=64)

    objects = AuditHeadQuerySet.as_manager()

    def __str__(self) -> str:
        return f"seal {self.number}"

    def authentic(self) -> bool:
        """Whether this KEY_ENCRYPTION_KEY wrote it."""
        return self.mac == self._mac()

    def names(self, seal: Numbered | None) -> bool:
        """Whether it is about this seal (None: about no seal yet)."""
        wanted = (seal.number, seal.digest) if seal else (0, "")
        return (self.number, self.digest) == wanted

    def name(self, seal: Numbered | None) -> None:
        """Be about this seal (None: no seal yet); not saved."""
        self.number, self.digest = (seal.number, seal.digest) if seal else (0, "")
        self.mac = self._mac()

    def _mac(self) -> str:
        return compute_mac("head", self.number, self.digest)
