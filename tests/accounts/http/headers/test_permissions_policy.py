"""The Permissions-Policy header."""

from __future__ import annotations

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from accounts.http.headers.permissions_policy import PermissionsPolicyMiddleware

pytestmark = pytest.mark.once
HEADER = "Permissions-Policy"
OFF = ["camera", "geolocation", "microphone", "payment"]
OFF += ["usb", "serial", "hid", "display-capture"]


def policy(**headers: str) -> str:
    middleware = PermissionsPolicyMiddleware(lambda r: HttpResponse(headers=headers))
    return middleware(RequestFactory().get("/"))[HEADER]


def test_features_are_off_and_passkeys_are_ours() -> None:
    """W3C Permissions Policy."""
    own = [f"publickey-credentials-{verb}=(self)" for verb in ("get", "create")]
    assert policy().split(", ") == [f"{name}=()" for name in OFF] + own


def test_a_views_policy_stays() -> None:
    assert policy(**{HEADER: "camera=(self)"}) == "camera=(self)"
