"""Ends of access in forms and rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.utils import timezone

from accounts.models import RoleAssignment
from accounts.parsing.end_of_day_field import EndOfDayField
from accounts.parsing.ends import LAST_END, EndField
from accounts.parsing.moments import CALENDAR_END
from tests.support.users import account

pytestmark = pytest.mark.once


def entered(day: str, clock: str, zone: str = "UTC") -> Any:
    """The value of the two inputs of a form."""
    with timezone.override(ZoneInfo(zone)):
        return EndOfDayField(required=False).clean([day, clock])


@pytest.mark.parametrize(
    ("zone", "end"),
    [
        ("UTC", datetime(2027, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        ("Asia/Seoul", datetime(2027, 12, 31, 14, 59, 59, 999_999, tzinfo=UTC)),
    ],
)
def test_a_date_alone_lasts_until_its_end(zone: str, end: datetime) -> None:
    assert entered("2027-12-31", "", zone) == end
    assert entered("2027-12-31", "08:30", zone) < end
    assert entered("", "", zone) is None


@pytest.mark.parametrize(
    ("day", "clock", "text"),
    [
        ("2027-03-28", "02:30", "2027-03-28 02:30 does not exist in the time zone"),
        ("", "02:30", "Enter a date"),
        ("2027-02-30", "", "such as 2026-12-31"),
        ("2027-03-28", "25:00", "such as 14:30"),
    ],
)
def test_a_time_that_does_not_exist_is_refused(day: str, clock: str, text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        entered(day, clock, "Europe/Berlin")


@pytest.mark.parametrize("zone", ["UTC", "Asia/Seoul", "America/Havana"])
def test_an_end_in_the_last_year_is_refused(zone: str) -> None:
    """Another time zone could move it past the last datetime."""
    with pytest.raises(ValidationError, match="too late"):
        entered("9999-12-31", "23:59", zone)
    with pytest.raises(ValidationError, match="too late"):
        EndField().clean(CALENDAR_END, None)
    EndField().clean(datetime(9998, 12, 31, tzinfo=UTC), None)


def test_the_end_of_a_role_is_such_a_field() -> None:
    assert EndField().deconstruct()[1] == "django.db.models.DateTimeField"
    assert isinstance(RoleAssignment._meta.get_field("expires_at"), EndField)


@pytest.mark.django_db
def test_a_later_end_from_elsewhere_does_not_overflow() -> None:
    account("ann", "User")
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE accounts_roleassignment SET expires_at = '9999-12-31 23:59:59'"
        )
    row = RoleAssignment.objects.get()
    assert row.expires_at == LAST_END
    with timezone.override(ZoneInfo("Pacific/Kiritimati")):
        assert timezone.localtime(row.expires_at).year == LAST_END.year
    row.extend(timedelta(days=30))
    assert row.expires_at is not None and row.expires_at < CALENDAR_END
    row.expires_at = LAST_END + timedelta(days=364)
    row.extend(timedelta(days=30))
    assert row.expires_at == LAST_END
