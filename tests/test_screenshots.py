"""The sample audit events in the screenshots of docs/screenshots."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import AuditEvent
from tests.tools.screenshots import YESTERDAY

pytestmark = [pytest.mark.once, pytest.mark.django_db]


def test_yesterday_is_filled_with_copies_of_calls() -> None:
    AuditEvent(action="tool.called", object="tool look", duration_ms=3.0).save()
    exec(YESTERDAY, {})  # noqa: S102 - a part of the tool
    early = AuditEvent.objects.filter(at__lt=timezone.now() - timedelta(minutes=30))
    copies = early.filter(action="tool.called", object="tool look", duration_ms=3.0)
    hours = {f"{at:%d %H}" for at in copies.values_list("at", flat=True)}
    assert len(hours) >= 23
