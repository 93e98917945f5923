"""Pages use the time zone of the reader's browser."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpResponse
from django.test import RequestFactory
from django.utils import timezone

from accounts.http.time_zone import ReaderTimeZoneMiddleware, zone_named

pytestmark = pytest.mark.once


def zone_of(path: str, cookie: str | None) -> str:
    """The zone while a page is served."""
    found: list[str] = []
    request: Any = RequestFactory().get(path)
    if cookie is not None:
        request.COOKIES["portico_time_zone"] = cookie

    def view(_request: Any) -> HttpResponse:
        found.append(timezone.get_current_timezone_name())
        return HttpResponse()

    ReaderTimeZoneMiddleware(view)(request)
    return found[0]


@pytest.mark.parametrize("path", ["/admin/", "/portal/", "/accounts/login/"])
def test_a_page_uses_the_zone_of_the_cookie(path: str, settings: Any) -> None:
    settings.TIME_ZONE = "Europe/Berlin"
    assert zone_of(path, "Asia/Seoul") == "Asia/Seoul"
    assert zone_of(path, None) == "Europe/Berlin"
    assert timezone.get_current_timezone_name() == "Europe/Berlin"


def test_programs_get_the_zone_of_the_server() -> None:
    assert zone_of("/api/token/", "Asia/Seoul") == "UTC"


@pytest.mark.parametrize(
    "name",
    ["America/Argentina/Buenos_Aires", "Etc/GMT+3", "UTC", "America/Port-au-Prince"],
)
def test_each_zone_has_a_name(name: str) -> None:
    assert str(zone_named(name)) == name


@pytest.mark.parametrize(
    "name",
    ["", "Mars/Base", "../../etc/passwd", "/etc/passwd", "Europe", "Europe/", "a" * 99]
    + ["Asia/Seoul\x00", "tzdata.zi", "Asia//Seoul", "\u00e4"],
)
def test_what_is_no_zone_is_ignored(name: str) -> None:
    assert zone_named(name) is None
    assert zone_of("/admin/", name) == "UTC"
