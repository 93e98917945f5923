"""The Content-Security-Policy of pages and its changes by views."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpResponse
from django.test import RequestFactory, override_settings

from accounts.http.content_security_policy import (
    HEADER,
    ContentSecurityPolicyMiddleware,
    override_policy,
)

SITE = {"default-src": ["'none'"], "form-action": ["'self'"], "upgrade": []}


def policy_of(response: HttpResponse, path: str = "/portal/") -> str:
    """The policy that the middleware adds to `response`."""
    with override_settings(SECURE_CSP=SITE):
        middleware = ContentSecurityPolicyMiddleware(lambda request: response)
        answer: Any = middleware(RequestFactory().get(path))
    return str(answer[HEADER])


def test_every_response_carries_the_sites_policy() -> None:
    """CSP Level 3."""
    policy = "default-src 'none'; form-action 'self'; upgrade"
    assert policy_of(HttpResponse()) == policy


def test_a_view_replaces_single_directives() -> None:
    with override_settings(SECURE_CSP=SITE):
        response = override_policy(
            HttpResponse(), {"script-src": ["'none'"], "upgrade": ["x"]}
        )
    policy = "default-src 'none'; form-action 'self'; upgrade x; script-src 'none'"
    assert policy_of(response) == policy


def test_a_header_set_by_a_view_stays() -> None:
    response = HttpResponse(headers={HEADER: "sandbox"})
    assert policy_of(response) == "sandbox"


@pytest.mark.parametrize("status", [200, 302, 403])
@pytest.mark.parametrize(
    ("path", "limited"),
    [
        ("/accounts/2fa/authenticate/", False),
        ("/accounts/login/", False),
        ("/accounts/oidc/corp/login/", False),
        ("/accounts/reauthenticate/", False),
        ("/device", False),
        ("/oauth/authorize", False),
        ("/admin/login/", True),
        ("/oauth/jwks.json", True),
        ("/portal/accounts/login/", True),
        ("/", True),
    ],
)
def test_forms_that_may_lead_to_a_client_may_lead_anywhere(
    path: str, limited: bool, status: int
) -> None:
    """Chromium applies form-action to all redirects of a client, too."""
    with override_settings(SECURE_CSP=SITE):
        changed = override_policy(HttpResponse(status=status), {"upgrade": []})
    for response in (HttpResponse(status=status), changed):
        policy = policy_of(response, path)
        assert ("form-action 'self'" in policy) == limited
        assert "default-src 'none'" in policy
    assert SITE["form-action"]
