"""Points in time as people type them: a date, a date and time, or `8h` from now."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.translation import gettext as _

UNITS = {"m": "minutes", "h": "hours", "d": "days"}
DURATION = r"([1-9][0-9]{0,5})([mhd])"
CALENDAR_START = datetime(2, 1, 1, tzinfo=UTC)
CALENDAR_END = datetime(9999, 1, 1, tzinfo=UTC)
"""Another time zone could move an earlier or a later moment out of all datetimes."""


class SkippedTime(ValueError):
    """Clocks skip this local time; the text is a sentence for the user."""


def day_or_moment(text: str, *, end: bool) -> datetime | None:
    """Parse a date or a datetime (ISO 8601); None for other text.

    A date means its first moment, or its last if `end`. Moments outside the calendar
    become its start or end. Raises ValueError for a date or a local time that does not
    exist.
    """
    moment, day = parse_datetime(text), parse_date(text)
    if day is not None and len(text) <= len("2026-12-31"):
        moment = end_of_day(day) if end else start_of_day(day)
    if moment is None:
        return None
    aware = moment if timezone.is_aware(moment) else local_moment(moment)
    return min(max(aware, CALENDAR_START), CALENDAR_END)


def start_of_day(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, datetime.min.time()))


def end_of_day(day: date) -> datetime:
    """The last moment of the day; the second one if clocks are set back then."""
    last = datetime.combine(day, datetime.max.time())
    return timezone.make_aware(last.replace(fold=1))


def local_moment(naive: datetime) -> datetime:
    """A time of the current time zone; the first one if clocks are set back then.

    Raises SkippedTime.
    """
    moment, zone = timezone.make_aware(naive), timezone.get_current_timezone()
    if CALENDAR_START < moment < CALENDAR_END:
        if moment.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != naive:
            text = _(
                "%(time)s does not exist in the time zone %(zone)s, because clocks "
                "are set forward then. Choose a later time."
            )
            shown = {"time": f"{naive:%Y-%m-%d %H:%M}", "zone": str(zone)}
            raise SkippedTime(text % shown)
    return moment


def too_late(moment: datetime) -> bool:
    """Whether it cannot be stored as an end."""
    return moment >= CALENDAR_END


def past_moment(text: str, *, end: bool) -> datetime | None:
    """Parse a date, a date and time, or a duration before now: `1h`, `7d`.

    None for other text, dates that do not exist, and years that overflow.
    """
    duration = re.fullmatch(DURATION, text, re.ASCII)
    try:
        if duration:
            span = timedelta(**{UNITS[duration[2]]: int(duration[1])})
            moment: datetime | None = timezone.now() - span
        else:
            moment = day_or_moment(text, end=end)
    except (ValueError, OverflowError):
        return None
    if moment is None or not CALENDAR_START < moment < CALENDAR_END:
        return None
    return moment


def parse_future_moment(text: str) -> datetime:
    """Parse a future moment; a date means its end. ValueError has a full sentence."""
    duration = re.fullmatch(DURATION, text, re.ASCII)
    if duration:
        return timezone.now() + timedelta(**{UNITS[duration[2]]: int(duration[1])})
    try:
        aware = day_or_moment(text, end=True)
    except SkippedTime:
        raise
    except ValueError as error:
        raise ValueError(f"{text} is no date: {error}") from error
    if aware is None:
        raise ValueError(f"{text!r} is no moment; write 2026-12-31, 8h or 30d.")
    if too_late(aware):
        raise ValueError(f"{text} is too late: the database ends with that year.")
    if aware <= timezone.now():
        raise ValueError(f"{text} has passed already.")
    return aware
