"""Pages about an account are not stored; allauth sets the header on a few only.

Its page of recovery codes would stay in the browser's cache after sign-out.
"""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.utils.cache import add_never_cache_headers

PAGES = "/accounts/"
"""Path prefix of allauth's pages."""


class NoStoreMiddleware:
    """Forbid caching of responses whose view has not set Cache-Control."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.path.startswith(PAGES) and "Cache-Control" not in response:
            add_never_cache_headers(response)
        return response
