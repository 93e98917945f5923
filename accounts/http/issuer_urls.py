"""Absolute URLs begin with ISSUER_URL, whatever the client wrote in `Host`.

ALLOWED_HOSTS judges host names but no ports, and a mail goes to somebody else than who
sent the request.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse


def use_issuer_url(request: HttpRequest) -> None:
    """Let `build_absolute_uri` begin with ISSUER_URL.

    Django keeps what it makes of `Host` in this attribute; a test holds it to that.
    """
    request._current_scheme_host = settings.ISSUER_URL  # type: ignore[attr-defined]


def is_other_host(request: HttpRequest) -> bool:
    """Whether somebody reads us under another host name than the issuer's.

    Ports are left out: proxies drop them, and cookies do not know them.
    """
    here = urlsplit(f"//{request.get_host()}").hostname
    return here != urlsplit(settings.ISSUER_URL).hostname


class IssuerMiddleware:
    """Django middleware: so for every request."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Before anybody builds an address."""
        use_issuer_url(request)
        return self.get_response(request)
