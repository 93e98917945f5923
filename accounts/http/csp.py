"""Content-Security-Policy on every page, shaped like Django 6's own (CSP Level 3).

Settings and override have the shape of Django 6.0's `SECURE_CSP`, `csp_override` and
`ContentSecurityPolicyMiddleware`, which can take this file's place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse

Policy = Mapping[str, Sequence[str]]
"""Directive -> sources, quotes included: `{"script-src": ["'self'"]}`."""

HEADER = "Content-Security-Policy"


def header_value(policy: Policy) -> str:
    """The header's text."""
    return "; ".join(f"{name} {' '.join(policy[name])}".strip() for name in policy)


def override_policy(response: HttpResponse, policy: Policy) -> HttpResponse:
    """Replace directives of the site's policy on this response."""
    merged = {**settings.SECURE_CSP, **policy}
    response._csp_config = merged  # type: ignore[attr-defined]
    return response


class ContentSecurityPolicyMiddleware:
    """Every response of Django's carries the policy, or its view's own."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Set the header where nobody has."""
        response = self.get_response(request)
        policy = getattr(response, "_csp_config", settings.SECURE_CSP)
        response.headers.setdefault(HEADER, header_value(policy))
        return response


SOURCE = re.compile(r"[A-Za-z0-9.:\-\[\]]+", re.ASCII)
"""Host and port as a CSP source may hold them."""


def csp_origin(uri: str) -> str:
    """The redirect as one CSP source; empty if it would be more than one."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        one = SOURCE.fullmatch(parts.netloc)
        return f"{parts.scheme}://{parts.netloc}" if one else ""
    return f"{parts.scheme}:"
