"""Every place that compares a secret is listed with its protection against guessing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import RequestFactory
from django.urls import URLPattern, get_resolver

from accounts.rate_limits.middleware import by_client, rule_for

pytestmark = pytest.mark.once
ROOT = Path(__file__).parent.parent.parent.parent
COMPARING = {
    "check_password",
    "acheck_password",
    "check_token",
    "compare_digest",
    "constant_time_compare",
    "compare_user_code",
    "validate_code",
    "validate_totp_code",
    "_check_secret",
    "authenticate",
    "aauthenticate",
    "reauthenticate",
    "secret_hash",
    "code_hash",
}
"""Functions that compare a secret, or look it up by its hash."""
LOCKED = "counted before it is judged (accounts/authentication/lockout.py)"
RANDOM = "at least 128 random bits, made here: no number of guesses finds one"
MAKES = "stores the hash of a new secret"
CHOSEN = "20 characters or more, chosen by the operator; compared in constant time"
SIGNED = "a signature"

VALIDATOR = "accounts/oauth/toolkit/validator.py PorticoValidator"
PLACES = {
    "accounts/authentication/lockout.py PasswordBackend.compare": LOCKED,
    "accounts/authentication/mfa.py consume_code": LOCKED,
    "accounts/authentication/invitations.py InvitationLinkView.get": RANDOM,
    "accounts/models/onboarding/invitations.py InvitationQuerySet.issue": MAKES,
    "accounts/authentication/views.py OldPasswordForm.clean_oldpassword": LOCKED,
    f"{VALIDATOR}._check_secret.compare": LOCKED,
    f"{VALIDATOR}.authenticate_client": "is it empty?",
    "accounts/oauth/clients/register.py is_registration_token.<lambda>": LOCKED,
    "accounts/oauth/clients/assertions.py claim_assertion_id": MAKES,
    "accounts/oauth/device.py DeviceView.serve": MAKES,
    "accounts/oauth/device.py redeem_device_code": RANDOM,
    f"{VALIDATOR}._create_authorization_code": MAKES,
    f"{VALIDATOR}.validate_code": RANDOM,
    f"{VALIDATOR}.confirm_redirect_uri": RANDOM,
    "accounts/rate_limits/middleware.py by_token": "names a counter",
    "accounts/tokens/principal.py personal_claims": RANDOM,
    "accounts/tokens/refresh.py _claims": RANDOM,
    "accounts/tokens/issue.py _with_refresh": MAKES,
    "accounts/tokens/lookup.py find_token": RANDOM,
    "accounts/tokens/issue.py issue_personal_token": MAKES,
    "accounts/oauth/authorize.py AuthorizeView.store": "names a query; no secret",
    "mcp_bridge/cache/decision_cache.py read_uncached": f"{SIGNED}, or {RANDOM}",
    "mcp_bridge/metrics/prometheus.py MetricsMiddleware.page": CHOSEN,
}
"""File and function -> the protection against guessing."""

ROUTES = {
    "api/token/": LOCKED,
    "api/token/refresh/": f"{SIGNED}, or {RANDOM}",
    "api/token/verify/": f"{SIGNED}, or {RANDOM}",
    "api/token/blacklist/": f"{SIGNED}, or {RANDOM}",
    "accounts/login/": LOCKED,
    "admin/login/": "leads to accounts/login/",
    "admin/password_change/": "leads to accounts/password/change/",
    "accounts/reauthenticate/": LOCKED,
    "accounts/password/change/": LOCKED,
    "accounts/password/set/": "asks for no secret, but for a recent sign-in",
    "accounts/password/reset/": "asks for no secret",
    "accounts/password/reset/key/": RANDOM,
    "accounts/invitation/": RANDOM,
    "accounts/2fa/authenticate/": LOCKED,
    "accounts/2fa/reauthenticate/": LOCKED,
    "accounts/2fa/totp/activate/": "a code of a secret that the person has just seen",
    "accounts/2fa/totp/deactivate/": "after a factor was given",
    "accounts/2fa/recovery-codes/generate/": "after a factor was given",
    "accounts/2fa/webauthn/": SIGNED,
    "accounts/oidc/": "the provider compares",
    "api/v1/": RANDOM,
    "oauth/token": LOCKED,
    "oauth/revoke": LOCKED,
    "oauth/introspect": LOCKED,
    "oauth/register": LOCKED,
    "oauth/device": LOCKED,
    "oauth/authorize": "asks for no secret",
    "device": LOCKED,
}
"""Prefix of a route that takes credentials -> its protection against guessing."""

PLAIN = (
    "admin/",
    "portal/",
    "accounts/social/",
    "accounts/language/",
    "accounts/logout/",
    "accounts/inactive/",
    "accounts/2fa/recovery-codes/",
    "accounts/password/reset/done/",
    "accounts/password/reset/key/done/",
    "admin/password_change/done/",
    "accounts/email/",
    "accounts/signup/",
    "accounts/confirm-email/",
    "accounts/login/code/",
    "api/docs/",
    "api/schema/",
    "oauth/jwks.json",
    ".well-known/",
    "healthz",
    "help/",
    "readyz",
)
"""Prefixes of routes that take no credentials except a session's."""
PAGES = {"", "accounts/", "accounts/2fa/"}
"""These only redirect."""


def comparisons() -> Iterator[str]:
    """Places that compare or look up a secret; commands are local and excluded."""
    for top in ("accounts", "mcp_bridge", "config", "examples"):
        for file in sorted((ROOT / top).rglob("*.py")):
            if "management" in file.parts:
                continue
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for where in comparing_functions(tree, ()):
                yield f"{file.relative_to(ROOT)} {'.'.join(where)}"


def comparing_functions(
    node: ast.AST, where: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    """Functions under a node that call one of COMPARING."""
    for child in ast.iter_child_nodes(node):
        inside = where
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = (*where, child.name)
        elif isinstance(child, ast.Lambda):
            inside = (*where, "<lambda>")
        if isinstance(child, ast.Call):
            called = child.func
            name = called.attr if isinstance(called, ast.Attribute) else ""
            name = called.id if isinstance(called, ast.Name) else name
            if name in COMPARING:
                yield where
        yield from comparing_functions(child, inside)


def routes(resolver: Any = None, before: str = "") -> Iterator[str]:
    """Every route, as the URL conf writes it."""
    for entry in (resolver or get_resolver()).url_patterns:
        route = before + str(entry.pattern).removeprefix("^")
        if isinstance(entry, URLPattern):
            yield route
        else:
            yield from routes(entry, route)


def takes_credentials(route: str) -> bool:
    """Whether the nearest entry is among ROUTES."""
    longest = max((p for p in PLAIN if route.startswith(p)), key=len, default="")
    return any(route.startswith(r) and len(r) > len(longest) for r in ROUTES)


def test_every_comparison_of_a_secret_is_listed() -> None:
    """A new comparison needs a lock-out, or a reason why it needs none."""
    assert set(comparisons()) == set(PLACES)


def test_every_route_is_listed_and_limited_where_it_takes_credentials() -> None:
    """A new route is added to a list; a route with credentials needs a rate limit."""
    found = set(routes()) - PAGES
    unknown = {r for r in found if not r.startswith((*PLAIN, *ROUTES))}
    assert not unknown
    taking = {route for route in found if takes_credentials(route)}
    assert not {r for r in ROUTES if not any(t.startswith(r) for t in taking)}
    assert not {route for route in taking if rule_for("POST", f"/{route}") is None}


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
def test_other_reading_methods_are_counted_as_get(method: str) -> None:
    """Django answers HEAD with the view's `get`."""
    assert rule_for(method, "/device") == rule_for("GET", "/device") is not None
    assert rule_for(method, "/oauth/authorize") is not None
    assert rule_for(method, "/api/token/") is None


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "PROPFIND"])
def test_other_writing_methods_are_counted_as_post(method: str) -> None:
    """Django's form views answer PUT with `post`."""
    for path in ("/accounts/login/", "/api/token/", "/device"):
        assert rule_for(method, path) == rule_for("POST", path) is not None


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Basic bWU6cGFzcyt3b3Jk"},
        {"authorization": "basic bWU6b3RoZXI="},
    ],
)
def test_a_client_is_counted_without_its_secret(headers: dict[str, str]) -> None:
    """A different secret counts for the same client, and the store keeps no secret."""
    form = "application/x-www-form-urlencoded"
    request = RequestFactory().post("/oauth/token", "", form, headers=headers)
    assert by_client(request) == "me"
    for odd in ("Basic %%%", "Basic gICA", "Bearer secret"):
        strange = {"authorization": odd}
        assert by_client(RequestFactory().post("/", "", form, headers=strange)) == ""
