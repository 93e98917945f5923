"""Paths of the token API without their final slash."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory

from accounts.api.trailing_slash import TrailingSlashMiddleware
from accounts.models import User
from tests.support.password import PASSWORD


@pytest.mark.parametrize(
    ("path", "served"),
    [
        ("/api/token", "/api/token/"),
        ("/api/token/refresh", "/api/token/refresh/"),
        ("/api/token/verify", "/api/token/verify/"),
        ("/api/token/blacklist", "/api/token/blacklist/"),
        ("/api/token/", "/api/token/"),
        ("/api/token//", "/api/token//"),
        ("/api/tokens", "/api/tokens"),
        ("/api/schema", "/api/schema/"),
        ("/oauth/token", "/oauth/token"),
        ("/admin", "/admin"),
        ("/portal", "/portal"),
    ],
)
def test_only_existing_paths_of_the_api_get_a_slash(path: str, served: str) -> None:
    seen: list[str] = []

    def view(request: HttpRequest) -> HttpResponse:
        seen.extend((request.path, request.path_info))
        return HttpResponse()

    TrailingSlashMiddleware(view)(RequestFactory().post(path))
    assert seen == [served, served]


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_body_is_not_lost(alice: User, slash: str, settings: Any) -> None:
    """A redirect would make the client send a GET without a body."""
    settings.LIMIT_PASSWORD = "1/minute"
    path, kind = f"/api/token{slash}", "application/json"
    form = {"username": "alice", "password": "x"}
    answer = Client().post(path, form, content_type=kind)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_grant")
    form["password"] = PASSWORD
    assert Client().post(path, form, content_type=kind).status_code == 429
