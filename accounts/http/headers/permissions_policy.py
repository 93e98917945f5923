"""The Permissions-Policy header, for which Django has no setting."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

PERMISSIONS = ", ".join(
    [
        *(f"{name}=()" for name in ("camera", "geolocation", "microphone", "payment")),
        *(f"{name}=()" for name in ("usb", "serial", "hid", "display-capture")),
        "publickey-credentials-get=(self)",
        "publickey-credentials-create=(self)",
    ]
)
"""Passkeys work on our own pages; all other listed features are off."""


class PermissionsPolicyMiddleware:
    """Set the header on every Django response whose view has not set it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS)
        return response
