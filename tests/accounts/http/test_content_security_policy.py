"""The Content-Security-Policy of pages and its changes by views."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpResponse
from django.test import RequestFactory, override_settings

from accounts.http.content_security_policy import (
    HEADER,
    ContentSecurityPolicyMiddleware,
    csp_origin,
    override_policy,
)

SITE = {"default-src": ["'none'"], "form-action": ["'self'"], "upgrade": []}


def policy_of(response: HttpResponse) -> str:
    """The policy that the middleware adds to `response`."""
    with override_settings(SECURE_CSP=SITE):
        middleware = ContentSecurityPolicyMiddleware(lambda request: response)
        answer: Any = middleware(RequestFactory().get("/"))
    return str(answer[HEADER])


def test_every_response_carries_the_sites_policy() -> None:
    """CSP Level 3."""
    policy = "default-src 'none'; form-action 'self'; upgrade"
    assert policy_of(HttpResponse()) == policy


def test_a_view_replaces_single_directives() -> None:
    """The consent page allows its form to redirect to the client."""
    with override_settings(SECURE_CSP=SITE):
        response = override_policy(
            HttpResponse(), {"form-action": ["'self'", "https://c"]}
        )
    assert "form-action 'self' https://c" in policy_of(response)
    assert "default-src 'none'" in policy_of(response)


def test_a_header_set_by_a_view_stays() -> None:
    response = HttpResponse(headers={HEADER: "sandbox"})
    assert policy_of(response) == "sandbox"


@pytest.mark.parametrize(
    ("uri", "source"),
    [
        ("http://127.0.0.1:43117/callback", "http://127.0.0.1:43117"),
        ("http://[::1]:5/callback", "http://[::1]:5"),
        ("app.example:/callback", "app.example:"),
        ("http://127.0.0.1:1; script-src */x", ""),
        ("http://127.0.0.1:1 https://evil.example/x", ""),
    ],
)
def test_an_outside_address_adds_at_most_one_source(uri: str, source: str) -> None:
    """A redirect URI's port cannot add a second directive."""
    assert csp_origin(uri) == source
