"""The language of a response."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpResponse
from django.test import RequestFactory
from django.utils import translation

from accounts.http.language import PageLanguageMiddleware, in_english

pytestmark = pytest.mark.once


def language(path: str, accept: str = "", cookie: str = "") -> str:
    """The language of a view at `path`."""
    spoken: list[str] = []

    def view(request: Any) -> HttpResponse:
        spoken.append(translation.get_language() or "")
        return HttpResponse()

    headers = {"accept-language": accept} if accept else {}
    request = RequestFactory().get(path, headers=headers)
    if cookie:
        request.COOKIES["portico_language"] = cookie
    with translation.override(None):
        PageLanguageMiddleware(view)(request)
    return spoken[0]


@pytest.mark.parametrize(
    ("accept", "cookie", "default", "spoken"),
    [
        ("", "", "en", "en"),
        ("", "", "ko", "ko"),
        ("ko", "", "en", "ko"),
        ("en-GB", "", "ko", "en"),
        ("fr", "", "ko", "ko"),
        ("ko", "en", "ko", "en"),
        ("ko", "xx", "en", "ko"),
        ("ko" * 400, "", "en", "en"),
    ],
)
def test_the_language_is_chosen_by_cookie_then_browser_then_setting(
    settings: Any, accept: str, cookie: str, default: str, spoken: str
) -> None:
    """RFC 9110 12.5.4."""
    settings.PAGE_LANGUAGE = default
    assert language("/portal/", accept, cookie) == spoken


@pytest.mark.parametrize("path", ["/api/token/", "/oauth/token", "/healthz", "/x"])
def test_requests_of_programs_are_answered_in_english(settings: Any, path: str) -> None:
    settings.PAGE_LANGUAGE = "ko"
    assert language(path, "ko", "ko") == "en"


def test_stored_text_is_english_and_the_language_is_restored() -> None:
    with translation.override("ko"):
        with in_english():
            assert translation.gettext("role") == "role"
        assert translation.gettext("role") == "역할"
