"""ImportDraft: an uploaded file between its dry run and its import."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone

from accounts.models.batches import Progress, delete_in_batches, unreported

RETENTION = timedelta(days=1)


class ImportDraftQuerySet(models.QuerySet["ImportDraft"]):
    def purge(self, now: Any, progress: Progress = unreported) -> int:
        """Delete drafts older than RETENTION; return their number."""
        old = self.filter(made_at__lt=now - RETENTION)
        return delete_in_batches(old, "pk", progress)

    purge.queryset_only = True  # type: ignore[attr-defined]
    purge.alters_data = True  # type: ignore[attr-defined]


class ImportDraft(models.Model):
    """One uploaded file per user and kind; it is used once or deleted after a day."""

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+"
    )
    kind = models.CharField(max_length=16)
    content = models.TextField()
    made_at = models.DateTimeField(default=timezone.now)

    objects = ImportDraftQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=("owner", "kind"), name="one_draft_per_owner_and_kind"
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} draft of {self.owner}"
