"""Dates, dates with a time, and durations as people type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone

from accounts.parsing.moments import (
    CALENDAR_END,
    CALENDAR_START,
    SkippedTime,
    day_or_moment,
    parse_future_moment,
    past_moment,
)
from tests.support.accounts import stop_clock

pytestmark = pytest.mark.once
NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.TIME_ZONE = "UTC"
    stop_clock(monkeypatch, NOW)


@pytest.mark.parametrize("text", ["2026-12-31", "20261231", "2026-W53-4"])
def test_a_date_is_its_first_or_its_last_moment(text: str) -> None:
    start = datetime(2026, 12, 31, tzinfo=UTC)
    assert day_or_moment(text, end=False) == start
    last = timedelta(days=1) - timedelta(microseconds=1)
    assert day_or_moment(text, end=True) == start + last


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-12-31 08:30", datetime(2026, 12, 31, 8, 30, tzinfo=UTC)),
        ("2026-12-31T08:30:05Z", datetime(2026, 12, 31, 8, 30, 5, tzinfo=UTC)),
        ("2026-12-31T08:30+02:00", datetime(2026, 12, 31, 6, 30, tzinfo=UTC)),
    ],
)
def test_a_moment_is_taken_as_it_is(text: str, expected: datetime, end: bool) -> None:
    assert day_or_moment(text, end=end) == expected


def test_a_moment_without_a_zone_is_one_of_ours(settings: Any) -> None:
    with timezone.override(ZoneInfo("Asia/Seoul")):
        moment = day_or_moment("2026-12-31 09:00", end=True)
        last = day_or_moment("2026-12-31", end=True)
    assert moment == datetime(2026, 12, 31, 0, 0, tzinfo=UTC)
    assert last is not None and last.astimezone(UTC).hour == 14


@pytest.mark.parametrize("text", ["", "soon", "8h", "31.12.2026", "2026-12-31\n"])
def test_other_text_is_no_moment(text: str) -> None:
    assert day_or_moment(text, end=True) is None
    assert day_or_moment(text, end=False) is None


@pytest.mark.parametrize("text", ["2026-02-31", "2026-13-01 10:00"])
def test_a_day_that_does_not_exist_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        day_or_moment(text, end=True)
    with pytest.raises(ValueError, match=f"{text} is no date: "):
        parse_future_moment(text)


@pytest.mark.parametrize(
    ("text", "ahead"),
    [
        ("1m", timedelta(minutes=1)),
        ("8h", timedelta(hours=8)),
        ("30d", timedelta(days=30)),
        ("999999d", timedelta(days=999_999)),
    ],
)
def test_a_duration_counts_from_now(text: str, ahead: timedelta) -> None:
    assert parse_future_moment(text) == NOW + ahead


@pytest.mark.parametrize(
    "text", ["0h", "01h", "1000000m", "8", "h", "8 h", "-8h", "8w", "8h\n", "٣h", "8H"]
)
def test_other_durations_are_no_moments(text: str) -> None:
    with pytest.raises(ValueError, match="is no moment; write 2026-12-31, 8h or 30d"):
        parse_future_moment(text)


def test_a_date_lasts_until_its_end() -> None:
    end = parse_future_moment("2026-05-01")
    assert end.date() == NOW.date() and end > NOW
    assert parse_future_moment("2026-05-01 12:00:01") == NOW + timedelta(seconds=1)


@pytest.mark.parametrize("text", ["2026-04-30", "2026-05-01 12:00", "2000-01-01"])
def test_a_moment_that_has_passed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"{text} has passed already"):
        parse_future_moment(text)


def test_the_last_year_of_the_calendar_is_refused() -> None:
    """Another time zone would move it past the last moment of a datetime."""
    assert parse_future_moment("9998-12-31").year == 9998
    for text in ("9999-01-01", "9999-12-31", "9999-12-31T23:59:59-12:00"):
        with pytest.raises(ValueError, match=f"{text} is too late"):
            parse_future_moment(text)


SKIPPED = [
    ("Europe/Berlin", "2027-03-28 02:30"),
    ("Europe/Berlin", "2027-03-28T02:00"),
    ("America/New_York", "2027-03-14 02:59:59"),
    ("Africa/Cairo", "2027-04-30 00:30"),
]


@pytest.mark.parametrize(("zone", "text"), SKIPPED)
def test_a_local_time_that_clocks_skip_is_refused(zone: str, text: str) -> None:
    with timezone.override(ZoneInfo(zone)):
        for parse in (parse_future_moment, lambda t: day_or_moment(t, end=True)):
            with pytest.raises(SkippedTime, match=f"does not exist in .* {zone}"):
                parse(text)
        assert day_or_moment(f"{text}+00:00", end=False) is not None
        assert day_or_moment(text[:10], end=False) is not None


def test_a_day_ends_after_clocks_were_set_back() -> None:
    """In Cuba and Egypt an hour near midnight comes twice."""
    for zone, day in (("America/Havana", "2027-11-07"), ("Africa/Cairo", "2027-10-28")):
        with timezone.override(ZoneInfo(zone)):
            end = day_or_moment(day, end=True)
            following = day_or_moment(day[:8] + f"{int(day[8:]) + 1:02}", end=False)
        assert end is not None and following is not None
        assert following - end == timedelta(microseconds=1)


def test_a_time_that_comes_twice_is_the_first() -> None:
    with timezone.override(ZoneInfo("Europe/Berlin")):
        moment = day_or_moment("2027-10-31 02:30", end=True)
    assert moment is not None
    assert moment.astimezone(UTC) == datetime(2027, 10, 31, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize("zone", ["Asia/Seoul", "America/Havana", "UTC"])
@pytest.mark.parametrize("end", [True, False])
def test_moments_at_the_ends_of_the_calendar_do_not_overflow(
    zone: str, end: bool
) -> None:
    first, last = "0001-01-01", "9999-12-31"
    with timezone.override(ZoneInfo(zone)):
        for text in (first, f"{first} 00:00", f"{first}T00:00+14:00"):
            assert day_or_moment(text, end=end) == CALENDAR_START
        for text in (last, f"{last} 23:59:59", f"{last}T23:59-12:00"):
            assert day_or_moment(text, end=end) == CALENDAR_END


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1h", NOW - timedelta(hours=1)),
        ("7d", NOW - timedelta(days=7)),
        ("90m", NOW - timedelta(minutes=90)),
        ("2026-04-30", datetime(2026, 4, 30, tzinfo=UTC)),
        ("2026-04-30T10:00Z", datetime(2026, 4, 30, 10, tzinfo=UTC)),
        ("9999-01-01", None),
        ("0001-01-01", None),
        ("999999d", None),
        ("2026-02-30", None),
        ("0h", None),
        ("1w", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_a_moment_of_the_past(text: str, moment: datetime | None) -> None:
    assert past_moment(text, end=False) == moment


def test_a_day_of_the_past_ends_with_its_last_moment() -> None:
    last = datetime(2026, 4, 30, 23, 59, 59, 999999, tzinfo=UTC)
    assert past_moment("2026-04-30", end=True) == last
