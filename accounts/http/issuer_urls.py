"""Absolute URLs start with ISSUER_URL; the `Host` header does not choose them.

ALLOWED_HOSTS does not check ports, and the recipient of a mail may be another person
than the sender of the request.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse


def use_issuer_url(request: HttpRequest) -> None:
    """Make `build_absolute_uri` start with ISSUER_URL.

    Django caches scheme and host in this private attribute; a test checks that.
    """
    request._current_scheme_host = settings.ISSUER_URL  # type: ignore[attr-defined]


def is_other_host(request: HttpRequest) -> bool:
    """Whether the request's host name differs from the issuer's.

    Ports are not compared: proxies drop them, and cookies ignore them.
    """
    here = urlsplit(f"//{request.get_host()}").hostname
    return here != urlsplit(settings.ISSUER_URL).hostname


PROBES = ("/healthz", "/readyz")
"""Paths that orchestrators ask by the address of a process: no allowed host."""


class IssuerMiddleware:
    """Call `use_issuer_url` for every request; accept any Host for PROBES."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        use_issuer_url(request)
        if request.path in PROBES:
            request.META["HTTP_HOST"] = urlsplit(settings.ISSUER_URL).netloc
        return self.get_response(request)
