"""RateLimited and its response: 429 with Retry-After (RFC 6585 4).

Password hashing, rate limits and lockout raise it. This module turns it into HTTP;
accounts/api/views.py does so for the token API.
"""

from __future__ import annotations

import math
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

from accounts.http.responses import page_or_json


class RateLimited(Exception):
    """The client may try again after `wait` seconds.

    A lazy text is translated for the page, not where it is raised.
    """

    status = 429
    error = "too_many_requests"

    def __init__(self, text: Any, wait: float) -> None:
        super().__init__(text)
        self.text = text
        self.wait = max(1, math.ceil(wait))


class RateLimitUnavailable(RateLimited):
    """The shared store does not answer, and this policy fails closed."""

    status = 503
    error = "temporarily_unavailable"


def rate_limited_response(request: HttpRequest, problem: RateLimited) -> HttpResponse:
    """Render the error as a page or, for programs, as JSON."""
    context = {"text": problem.text, "minutes": math.ceil(problem.wait / 60)}
    page, error = ("too_many.html", context), (problem.error, str(problem))
    wait = {"Retry-After": str(problem.wait)}
    return page_or_json(request, problem.status, page, error, **wait)


def lockout_text() -> Any:
    """Return the lockout message; it does not depend on whether the account exists."""
    return _(
        "Too many failed sign-ins. Wait, or ask an administrator to unlock the account."
    )


class RateLimitedResponseMiddleware:
    """Turn a RateLimited that no view caught into its response."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        return self.get_response(request)

    def process_exception(
        self, request: HttpRequest, error: Exception
    ) -> HttpResponse | None:
        """Return the response to RateLimited; None for all other exceptions."""
        return (
            rate_limited_response(request, error)
            if isinstance(error, RateLimited)
            else None
        )
