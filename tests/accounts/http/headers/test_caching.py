"""Pages about an account are not stored."""

from __future__ import annotations

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from accounts.http.headers.caching import NoStoreMiddleware

pytestmark = pytest.mark.once


def cache_control(path: str, **headers: str) -> str:
    """What the middleware makes of a view's headers."""
    middleware = NoStoreMiddleware(lambda request: HttpResponse(headers=headers))
    return middleware(RequestFactory().get(path)).headers.get("Cache-Control", "")


@pytest.mark.parametrize("path", ["/accounts/2fa/recovery-codes/", "/accounts/login/"])
def test_pages_of_accounts_are_not_stored(path: str) -> None:
    """RFC 9111 5.2.2.5."""
    assert "no-store" in cache_control(path) and "private" in cache_control(path)


def test_a_view_decides_itself() -> None:
    given = {"Cache-Control": "max-age=60"}
    assert cache_control("/accounts/x/", **given) == "max-age=60"


@pytest.mark.parametrize("path", ["/oauth/jwks.json", "/healthz", "/x/accounts/"])
def test_other_paths_are_unchanged(path: str) -> None:
    assert cache_control(path) == ""
