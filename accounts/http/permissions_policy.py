"""Headers that no setting of Django's writes."""

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
"""Permissions-Policy: passkeys are ours, nothing else of the machine's is wanted."""


class PermissionsPolicyMiddleware:
    """Every response of Django's carries them, unless its view has said otherwise."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Set what is not set."""
        response = self.get_response(request)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS)
        return response
