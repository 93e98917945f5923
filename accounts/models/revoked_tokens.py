"""RevokedToken: the one table that says which tokens no longer count."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class RevokedTokenQuerySet(models.QuerySet["RevokedToken"]):
    """Looking up and cleaning."""

    def purge(self, before: datetime | None = None) -> int:
        """Forget revocations of tokens that have expired by themselves."""
        return self.filter(until__lt=before or timezone.now()).delete()[0]

    purge.queryset_only = True  # type: ignore[attr-defined]
    purge.alters_data = True  # type: ignore[attr-defined]


class RevokedToken(models.Model):
    """A token id (`jti`) refused from now on, by whom and why."""

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
