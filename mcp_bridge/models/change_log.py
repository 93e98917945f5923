"""The change log that triggers write and number."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class LoggedChange(models.Model):
    """One change that decisions depend on; only database triggers write it."""

    number = models.BigIntegerField(
        null=True, unique=True, help_text=_("Numbers follow the order of commits.")
    )
    kind = models.CharField(
        max_length=16, help_text=_("See mcp_bridge/cache/watched_tables.py.")
    )
    key = models.CharField(
        max_length=255,
        help_text=_(
            "The user or token that the change affects. Empty if it affects all."
        ),
    )

    class Meta:
        verbose_name = _("change")

    def __str__(self) -> str:
        return f"{self.number} {self.kind} {self.key}".strip()


class ChangeCounter(models.Model):
    """One row: the number of the last change, and the epoch of the numbers.

    An empty epoch means that changes are not tracked, so nothing may be cached.
    """

    epoch = models.CharField(max_length=32, blank=True)
    number = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = _("change counter")

    def __str__(self) -> str:
        return f"{self.number} of {self.epoch or 'no epoch'}"
