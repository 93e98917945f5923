"""The language of a response: pages follow the reader, programs get English.

API errors, the audit and commands are always English: RFC 6749 5.2 allows ASCII only,
and people of several languages read one log.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.middleware.locale import LocaleMiddleware
from django.utils import translation

PAGES = ("/accounts/", "/admin/", "/device", "/oauth/authorize", "/portal/")
"""Path prefixes of pages."""

ENGLISH = "en"


def reader_language(request: HttpRequest) -> str:
    """Return the language of the cookie, else the browser, else PAGE_LANGUAGE.

    Django's rule, with PAGE_LANGUAGE as the last accepted language.
    """
    accepted = request.META.get("HTTP_ACCEPT_LANGUAGE", "")
    last = f"{settings.PAGE_LANGUAGE};q=0.001"
    asked = HttpRequest()
    asked.COOKIES = request.COOKIES
    asked.META["HTTP_ACCEPT_LANGUAGE"] = f"{last}, {accepted}" if accepted else last
    return translation.get_language_from_request(asked)


class PageLanguageMiddleware(LocaleMiddleware):
    """Choose the reader's language for pages, and English for programs."""

    def process_request(self, request: HttpRequest) -> None:
        page = request.path_info.startswith(PAGES)
        translation.activate(reader_language(request) if page else ENGLISH)
        request.LANGUAGE_CODE = translation.get_language() or ENGLISH

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        """Set Content-Language on pages only."""
        if not request.path_info.startswith(PAGES):
            return response
        return super().process_response(request, response)


def in_english() -> translation.override:
    """Return a context in which texts are English: for stored rows and programs."""
    return translation.override(ENGLISH)
