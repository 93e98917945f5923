"""RevokedToken: the ids (`jti`) of revoked tokens."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.models.batches import Progress, delete_in_batches, unreported


class RevokedTokenQuerySet(models.QuerySet["RevokedToken"]):
    """Deletes revocations that are no longer needed."""

    def purge(
        self, before: datetime | None = None, progress: Progress = unreported
    ) -> int:
        """Delete revocations of tokens that have expired; return their number."""
        expired = self.filter(until__lt=before or timezone.now())
        return delete_in_batches(expired, "until", progress)

    purge.queryset_only = True  # type: ignore[attr-defined]
    purge.alters_data = True  # type: ignore[attr-defined]


class RevokedToken(models.Model):
    """A revoked token id with the actor and the reason."""

    jti = models.CharField(_("token ID"), max_length=64, primary_key=True)
    until = models.DateTimeField(
        _("until"),
        help_text=_("The expiry time of the token. The row can be deleted afterwards."),
        db_index=True,
    )
    revoked_at = models.DateTimeField(_("revoked at"), default=timezone.now)
    revoked_by = models.CharField(_("revoked by"), max_length=150, blank=True)
    reason = models.CharField(_("reason"), max_length=255, blank=True)

    objects = RevokedTokenQuerySet.as_manager()

    class Meta:
        ordering = ("-revoked_at",)
        indexes = [
            models.Index(fields=["revoked_at"], name="revoked_at"),
            models.Index(fields=["revoked_by", "revoked_at"], name="revoked_by"),
        ]
        verbose_name = _("revoked token")
        verbose_name_plural = _("revoked tokens")

    def __str__(self) -> str:
        return self.jti
