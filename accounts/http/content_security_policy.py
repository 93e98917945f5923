"""Content-Security-Policy on every page (CSP Level 3).

The setting and the override mirror `SECURE_CSP`, `csp_override` and
`ContentSecurityPolicyMiddleware` of Django 6.0, which can replace this file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse

Policy = Mapping[str, Sequence[str]]
"""Directive -> sources with their quotes: `{"script-src": ["'self'"]}`."""

HEADER = "Content-Security-Policy"


def header_value(policy: Policy) -> str:
    return "; ".join(f"{name} {' '.join(policy[name])}".strip() for name in policy)


def override_policy(response: HttpResponse, policy: Policy) -> HttpResponse:
    """Replace directives of SECURE_CSP on this response."""
    merged = {**settings.SECURE_CSP, **policy}
    response._csp_config = merged  # type: ignore[attr-defined]
    return response


class ContentSecurityPolicyMiddleware:
    """Set the policy of the view, or SECURE_CSP, on every Django response."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        policy = getattr(response, "_csp_config", settings.SECURE_CSP)
        response.headers.setdefault(HEADER, header_value(policy))
        return response


SOURCE = re.compile(r"[A-Za-z0-9.:\-\[\]]+", re.ASCII)
"""Host and port that are valid in a CSP source."""


def csp_origin(uri: str) -> str:
    """Return the redirect as one CSP source; empty if it would be several."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        valid = SOURCE.fullmatch(parts.netloc)
        return f"{parts.scheme}://{parts.netloc}" if valid else ""
    return f"{parts.scheme}:"
