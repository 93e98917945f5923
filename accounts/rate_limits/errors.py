"""TooMany: asked too often. One exception, one answer: 429 with Retry-After (RFC 6585).

Raised deep (hashing, limits, lock-out), turned into HTTP here and, for the token API,
in accounts/api/views.py.
"""

from __future__ import annotations

import math
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from accounts.http.responses import page_or_json


class RateLimited(Exception):
    """Not now; `wait` seconds later. `status` is 503 where nobody can count."""

    status = 429
    error = "too_many_requests"

    def __init__(self, text: str, wait: float) -> None:
        super().__init__(text)
        self.wait = max(1, math.ceil(wait))


class RateLimitUnavailable(RateLimited):
    """The shared store of the limits is away, and this door fails closed."""

    status = 503
    error = "temporarily_unavailable"


def rate_limited_response(request: HttpRequest, problem: RateLimited) -> HttpResponse:
    """A page for people at a page, JSON for programs."""
    context = {"text": str(problem), "minutes": math.ceil(problem.wait / 60)}
    page, told = ("too_many.html", context), (problem.error, str(problem))
    wait = {"Retry-After": str(problem.wait)}
    return page_or_json(request, problem.status, page, told, **wait)


def lockout_text() -> str:
    """What somebody locked out reads: the same whether or not the account exists."""
    return _("Too many wrong attempts. Wait, or ask an administrator to unlock it.")


class RateLimitedMiddleware:
    """Django middleware: a TooMany that no view caught becomes its answer."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        """Pass on."""
        return self.get_response(request)

    def process_exception(
        self, request: HttpRequest, error: Exception
    ) -> HttpResponse | None:
        """Answer a TooMany; all else is somebody else's."""
        return (
            rate_limited_response(request, error)
            if isinstance(error, RateLimited)
            else None
        )
