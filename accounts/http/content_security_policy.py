"""Content-Security-Policy on every page (CSP Level 3).

The setting and the override mirror `SECURE_CSP`, `csp_override` and
`ContentSecurityPolicyMiddleware` of Django 6.0, which can replace this file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from django.conf import settings
from django.http import HttpRequest, HttpResponse

Policy = Mapping[str, Sequence[str]]
"""Directive -> sources with their quotes: `{"script-src": ["'self'"]}`."""

HEADER = "Content-Security-Policy"

WITHOUT_FORM_ACTION = ("/accounts/", "/device", "/oauth/authorize")
"""Pages whose forms may lead to a client or a sign-in provider.

Chromium applies `form-action` to every redirect after a form. Clients and providers
redirect further, to hosts and private-use schemes that nobody can list here. A CSP
source also cannot contain an IPv6 address, as in `http://[::1]:8342/callback`.
"""


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
        policy = dict(getattr(response, "_csp_config", settings.SECURE_CSP))
        if request.path_info.startswith(WITHOUT_FORM_ACTION):
            policy.pop("form-action", None)
        response.headers.setdefault(HEADER, header_value(policy))
        return response
