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


class PageLanguageMiddleware(LocaleMiddleware):
    """Choose the language of the cookie, else the browser, else PAGE_LANGUAGE."""

    def process_request(self, request: HttpRequest) -> None:
        """Apply Django's rule, with PAGE_LANGUAGE as the last accepted language."""
        if not request.path_info.startswith(PAGES):
            translation.activate(ENGLISH)
            request.LANGUAGE_CODE = ENGLISH
            return
        accepted = request.META.get("HTTP_ACCEPT_LANGUAGE", "")
        last = f"{settings.PAGE_LANGUAGE};q=0.001"
        request.META["HTTP_ACCEPT_LANGUAGE"] = (
            f"{last}, {accepted}" if accepted else last
        )
        super().process_request(request)

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        """Set Content-Language on pages only."""
        if not request.path_info.startswith(PAGES):
            return response
        return super().process_response(request, response)


def in_english() -> translation.override:
    """Return a context in which texts are English: for stored rows and programs."""
    return translation.override(ENGLISH)
