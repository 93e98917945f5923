"""The time zone of a page: the reader's, from a cookie that the pages' script sets.

API responses, the audit export and commands use TIME_ZONE or UTC.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from django.http import HttpRequest, HttpResponseBase
from django.utils import timezone

from accounts.http.language import PAGES

COOKIE = "portico_time_zone"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}", re.ASCII)


class ReaderTimeZoneMiddleware:
    """Shows and reads times in the browser's zone; without the cookie in TIME_ZONE."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        page = request.path_info.startswith(PAGES)
        name = request.COOKIES.get(COOKIE, "") if page else ""
        with timezone.override(zone_named(name)):
            response: HttpResponseBase = self.get_response(request)
            return response


@lru_cache(maxsize=128)
def zone_named(name: str) -> ZoneInfo | None:
    """The zone with this IANA name; None if there is none."""
    if len(name) > 64 or not NAME.fullmatch(name):
        return None
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        # ZoneInfoNotFoundError is a KeyError; a directory such as "Europe" an OSError.
        return None
