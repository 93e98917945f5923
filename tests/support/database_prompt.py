"""Raw SQL access to the audit table."""

from __future__ import annotations

from typing import Any

from django.db import models

from accounts.models import AuditEvent, AuditHead, AuditSeal


def raw_events(**of: Any) -> Any:
    """A queryset of events without the model's restrictions."""
    return models.QuerySet(AuditEvent).filter(**of)


def empty_audit() -> None:
    """An empty audit log."""
    raw_events()._raw_delete("default")
    AuditSeal.objects.all().delete()
    head = AuditHead.objects.first() or AuditHead()
    head.point_to(None)
    head.save()


def first_problem(newest: int | None = None) -> str:
    checked = list(AuditSeal.objects.all().verify(newest))
    return checked[-1].problem if checked else "nothing sealed"
