"""Looks for what no change causes: roles that end soon, and checks that fail."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.core import checks
from django.db.models import F
from django.utils import timezone

from accounts.admin_site.system_status import findings
from accounts.http.language import in_english
from accounts.models import (
    Delivery,
    FailingCheck,
    NotificationChannel,
    RoleAssignment,
)
from accounts.models.notifications.kinds import CHECK_FAILED, ROLE_ENDING
from accounts.models.notifications.outbox import MOST_IN_AN_HOUR, notify

LONGEST_TEXT = 500


def look_around() -> int:
    """Notify of both; returns how many notifications were added."""
    with in_english():
        return notify_of_ending_roles(timezone.now()) + notify_of_failing_checks()


def notify_of_ending_roles(now: datetime) -> int:
    """Notify once of each role that ends within ROLE_ENDING_NOTICE.

    A role that was given for less than this time is left out: its end is no surprise.
    """
    notice, name = settings.ROLE_ENDING_NOTICE, ROLE_ENDING.name
    channels = NotificationChannel.objects.all().interested_in(name)
    if not notice or not channels:
        return 0
    known = set(
        Delivery.objects.filter(kind=name).values_list("channel_id", "occasion")
    )
    added = 0
    for row in ending_roles(now, notice):
        occasion = f"{row.pk} {row.expires_at:%Y-%m-%dT%H:%M:%S%z}"
        if all((channel.pk, occasion) in known for channel in channels):
            continue
        if added >= MOST_IN_AN_HOUR:  # The others follow at a later look.
            break
        added += notify(name, about(row), occasion=occasion)
    return added


def ending_roles(now: datetime, notice: timedelta) -> list[RoleAssignment]:
    """Assignments that end within `notice`, the first to end first."""
    rows = RoleAssignment.objects.filter(
        expires_at__gt=now,
        expires_at__lte=now + notice,
        granted_at__lt=F("expires_at") - notice,
        user__is_active=True,
    )
    return list(rows.select_related("user", "role").order_by("expires_at", "pk"))


def about(row: RoleAssignment) -> dict[str, str]:
    """The data of the notification."""
    return {
        "object": str(row),
        "until": f"{timezone.localtime(row.expires_at):%Y-%m-%d %H:%M %Z}",
        "assignment": f"roleassignment:{row.pk}",
    }


def notify_of_failing_checks() -> int:
    """Run the checks of `doctor`; notify once of each that begins to fail."""
    if not NotificationChannel.objects.all().interested_in(CHECK_FAILED.name):
        return 0
    return FailingCheck.objects.all().update_from(failing())


def failing() -> dict[str, tuple[str, str]]:
    """Id -> (problem, fix) of the checks that fail now."""
    found: dict[str, tuple[str, str]] = {}
    for message in findings():
        if message.level >= checks.WARNING:
            words = str(message.msg)[:LONGEST_TEXT], str(message.hint or "-")
            found.setdefault((message.id or "unnamed")[:64], words)
    return found
