"""`{{ when|ago }}`: a relative time with the exact one in the title."""

from __future__ import annotations

from datetime import datetime

from django import template

from accounts.http.relative_times import time_element

register = template.Library()


@register.filter
def ago(when: datetime | None) -> str:
    """Empty without a time."""
    return time_element(when) if when else ""
