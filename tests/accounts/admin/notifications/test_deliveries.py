"""The log of deliveries in the admin, and sending again."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from accounts.models import Delivery
from tests.support.admin_browser import (
    AdminBrowser,
    events_by,
    list_url,
    row_url,
    staff_member,
)
from tests.support.notification_rows import channel_row, delivery_row

pytestmark = pytest.mark.django_db
FAILED: dict[str, Any] = {
    "state": "failed",
    "attempts": 8,
    "result": "HTTP 500",
    "next_attempt_at": None,
    "attempted_at": timezone.now(),
}


def test_the_log_shows_event_result_and_text(root: AdminBrowser) -> None:
    row = delivery_row(channel_row(name="Siem"), **FAILED)
    text = root.open(list_url(Delivery)).page.text
    for word in ("Siem", "Access requests", "HTTP 500", "failed"):
        assert word in text
    page = root.open(row_url(Delivery, row)).page.text
    assert "Access request: alice requests Admin. Reason: work" in page
    assert row.message_id in page


def test_a_delivery_is_sent_again(root: AdminBrowser) -> None:
    row = delivery_row(channel_row(name="Siem"), **FAILED)
    text = root.run(Delivery, "send_again", row)
    assert "1 delivery is sent again." in text
    row.refresh_from_db()
    assert (row.state, row.attempts, row.result) == ("waiting", 0, "")
    claimed = Delivery.objects.all().claim()
    assert claimed is not None and claimed.message_id == row.message_id
    about = "access.requested to Siem"
    assert events_by(root.user) == [("notification.resent", about, "")]


def test_others_read_the_log_only() -> None:
    row = delivery_row(channel_row(), **FAILED)
    browser = AdminBrowser(staff_member("olga", "view_delivery"))
    assert browser.open(list_url(Delivery)).page.status_code == 200
    browser.send(Delivery, "send_again", row)
    row.refresh_from_db()
    assert row.state == "failed"
