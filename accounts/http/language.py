"""Which language: people's pages speak theirs, all that programs read is English.

Messages in error answers, the audit and the command line are English whatever the
reader's language: RFC 6749 5.2 allows ASCII only, and a log is read by many.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.middleware.locale import LocaleMiddleware
from django.utils import translation

PAGES = ("/accounts/", "/admin/", "/device", "/oauth/authorize", "/portal/")
"""Paths that people look at."""

ENGLISH = "en"


class PageLanguageMiddleware(LocaleMiddleware):
    """The language of the cookie, else of the browser, else PAGE_LANGUAGE."""

    def process_request(self, request: HttpRequest) -> None:
        """Django's own rule, with PAGE_LANGUAGE as the last wish."""
        if not request.path_info.startswith(PAGES):
            translation.activate(ENGLISH)
            request.LANGUAGE_CODE = ENGLISH
            return
        asked = request.META.get("HTTP_ACCEPT_LANGUAGE", "")
        last = f"{settings.PAGE_LANGUAGE};q=0.001"
        request.META["HTTP_ACCEPT_LANGUAGE"] = f"{last}, {asked}" if asked else last
        super().process_request(request)

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        """Say which, on pages."""
        if not request.path_info.startswith(PAGES):
            return response
        return super().process_response(request, response)


def in_english() -> translation.override:
    """`with in_english():` for words that are stored or sent to a program."""
    return translation.override(ENGLISH)
