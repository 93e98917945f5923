"""/healthz, and what Django answers when something breaks: 503 for what passes."""

from __future__ import annotations

import sys

from django.core.exceptions import (
    DisallowedHost,
    RequestDataTooBig,
    TooManyFieldsSent,
)
from django.db import InterfaceError, InternalError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse

from accounts.keymaterial import KeyUnreadable

PASSING: dict[type[Exception], str] = {
    OperationalError: "The database cannot be reached or is busy; try again.",
    InterfaceError: "The database cannot be reached; try again.",
    InternalError: "The database takes no changes just now; try again.",
    KeyUnreadable: "Tokens cannot be signed: run manage.py doctor on the server.",
}
"""What is over by itself or by an operator's hand -> what to say of it."""

REFUSED: dict[type[Exception], str] = {
    RequestDataTooBig: "The body is too large.",
    TooManyFieldsSent: "The form has too many fields.",
    DisallowedHost: "This host name is not in ALLOWED_HOSTS.",
}
"""What Django refuses by itself -> what to say of it."""


def healthz(request: HttpRequest) -> JsonResponse:
    """200 as soon as requests are served; asks nothing of the database."""
    return JsonResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler400: what its own limits refuse before a view sees it."""
    found = [told for kind, told in REFUSED.items() if isinstance(exception, kind)]
    told = found[0] if found else "The request is malformed."
    body = {"error": "invalid_request", "error_description": told}
    return JsonResponse(body, status=400, headers={"Cache-Control": "no-store"})


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500: 503 with Retry-After where trying again makes sense."""
    error = sys.exc_info()[1]
    found = [told for kind, told in PASSING.items() if isinstance(error, kind)]
    told = found[0] if found else "Something broke; it is in the server's log."
    name = "temporarily_unavailable" if found else "server_error"
    headers = {"Cache-Control": "no-store"} | ({"Retry-After": "5"} if found else {})
    body = {"error": name, "error_description": told}
    return JsonResponse(body, status=503 if found else 500, headers=headers)
