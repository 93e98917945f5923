"""Points in time as people type them: a date, a date and time, or `8h` from now."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

UNITS = {"m": "minutes", "h": "hours", "d": "days"}
DURATION = r"([1-9][0-9]{0,5})([mhd])"


def day_or_moment(text: str, *, end: bool) -> datetime | None:
    """Parse a date or a datetime; None for other text.

    A date means its first moment, or its last if `end`. Raises ValueError for a date
    that does not exist.
    """
    moment, day = parse_datetime(text), parse_date(text)
    if day is not None and len(text) <= len("2026-12-31"):
        clock = datetime.max.time() if end else datetime.min.time()
        moment = datetime.combine(day, clock)
    if moment is None:
        return None
    return moment if timezone.is_aware(moment) else timezone.make_aware(moment)


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
    if moment is None or moment.year in (datetime.min.year, datetime.max.year):
        return None
    return moment


def parse_future_moment(text: str) -> datetime:
    """Parse a future moment; a date means its end. ValueError has a full sentence."""
    duration = re.fullmatch(DURATION, text, re.ASCII)
    if duration:
        return timezone.now() + timedelta(**{UNITS[duration[2]]: int(duration[1])})
    try:
        aware = day_or_moment(text, end=True)
    except ValueError as error:
        raise ValueError(f"{text} is no date: {error}") from error
    if aware is None:
        raise ValueError(f"{text!r} is no moment; write 2026-12-31, 8h or 30d.")
    if aware.year == datetime.max.year:
        raise ValueError(f"{text} is too late: the database ends with that year.")
    if aware <= timezone.now():
        raise ValueError(f"{text} has passed already.")
    return aware
