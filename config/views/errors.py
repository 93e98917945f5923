"""What Django answers when something breaks: 400, 409, 500 or 503."""

from __future__ import annotations

import sys

from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.core.exceptions import DisallowedHost, RequestDataTooBig, TooManyFieldsSent
from django.db import (
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
)
from django.http import HttpRequest, HttpResponse, JsonResponse

from accounts.crypto.encryption import KeyUnreadable
from accounts.http.responses import page_or_json
from config.views.health import UNFIT, undeclared_lookup
from mcp_bridge.http.request_id import request_id

PASSING: dict[type[Exception], str] = {
    OperationalError: "The database cannot be reached or is busy; try again.",
    InterfaceError: "The database cannot be reached; try again.",
    InternalError: "The database takes no changes just now; try again.",
    KeyUnreadable: "Tokens cannot be signed: run manage.py doctor on the server.",
}
"""What is over by itself or by an operator's hand -> what to say of it."""


MET = {
    "23503",
    "23505",
    "SQLITE_CONSTRAINT_FOREIGNKEY",
    "SQLITE_CONSTRAINT_PRIMARYKEY",
    "SQLITE_CONSTRAINT_UNIQUE",
}
"""Two changes met: a row was deleted while another came to depend on it, or two made
the same row. The forms looked before; each saw nothing of the other yet."""


RETRY = {503: {"Retry-After": "5"}}


REFUSED: dict[type[Exception], str] = {
    RequestDataTooBig: "The body is too large.",
    TooManyFieldsSent: "The form has too many fields.",
    DisallowedHost: "This host name is not in ALLOWED_HOSTS.",
}
"""What Django refuses by itself -> what to say of it."""


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler400: what its own limits refuse before a view sees it."""
    if isinstance(exception, DisallowedModelAdminLookup):
        return undeclared_lookup(request, exception)
    found = [told for kind, told in REFUSED.items() if isinstance(exception, kind)]
    told = found[0] if found else "The request is malformed."
    body = {"error": "invalid_request", "error_description": told}
    return JsonResponse(body, status=400, headers={"Cache-Control": "no-store"})


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500: 503 with Retry-After where trying again makes sense, 409
    where two changes met; a page for people at a page, JSON for programs.
    """
    status, told = classify_error(sys.exc_info()[1])
    page = (f"{status}.html", {"id": request_id.get()})
    return page_or_json(request, status, page, told, **RETRY.get(status, {}))


def classify_error(error: BaseException | None) -> tuple[int, tuple[str, str]]:
    """What a view raised, as status and (error, error_description)."""
    for kind, told in PASSING.items():
        if isinstance(error, kind):
            return 503, ("temporarily_unavailable", told)
    if isinstance(error, IntegrityError) and state_of(error.__cause__) in MET:
        told = "Something this depends on was changed at the same moment; try again."
        return 409, ("conflict", told)
    if isinstance(error, UNFIT) or "integer string conversion" in str(error):
        return 400, ("invalid_request", "A value is too large or has odd characters.")
    return 500, ("server_error", "Something broke; it is in the server's log.")


def state_of(error: BaseException | None) -> str:
    """What PostgreSQL's or SQLite's driver calls it; empty if neither."""
    found = getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None)
    return str(found or "")
