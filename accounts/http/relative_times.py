"""Times as people say them, with the exact time in the title."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from django.utils.translation import gettext as _

MOMENT, LONG = timedelta(minutes=1), timedelta(days=30)
RESOLUTION = timedelta.resolution
"""Shorter ago is now; longer ago is a date."""


def relative(when: datetime) -> str:
    """Such as "5 minutes ago", "in 2 days" or "3 Nov 2026"."""
    now = timezone.now()
    distance = abs(now - when)
    if distance >= LONG:
        return date_format(timezone.localtime(when), _("j M Y"))
    if distance < MOMENT:
        return _("just now") if when <= now else _("in less than a minute")
    if when <= now:
        return _("%(time)s ago") % {"time": timesince(when, now, depth=1)}
    # "in 1 day" would be half of what is left, and what ends in two days said a second
    # ago still ends in two days.
    left = timesince(now, when + MOMENT - RESOLUTION, depth=2)
    return _("in %(time)s") % {"time": left}


def exact(when: datetime) -> str:
    """The time to the second by the reader's clock, with the zone."""
    return f"{timezone.localtime(when):%Y-%m-%d %H:%M:%S %Z}"


def time_element(when: datetime) -> SafeString:
    """`<time>` with the relative time; the title and `datetime` are exact."""
    return format_html(
        '<time class="ago" datetime="{}" title="{}">{}</time>',
        timezone.localtime(when).isoformat(),
        exact(when),
        relative(when),
    )
