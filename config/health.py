"""/healthz, and what Django answers when something breaks: 503 for what passes, 409
for changes that met, 400 for values that no column can hold.
"""

from __future__ import annotations

import sys

from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.core.exceptions import (
    DisallowedHost,
    RequestDataTooBig,
    TooManyFieldsSent,
)
from django.db import (
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
)
from django.http import HttpRequest, HttpResponse, JsonResponse

from accounts.answers import page_or_json
from accounts.encryption import KeyUnreadable
from mcp_bridge.request_id import request_id

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

UNFIT = (DataError, OverflowError)
"""The database or its driver refuses a value of the request: a number too large for
its column, a NUL. Forms look for neither in the keys of rows that they are sent."""

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
    if isinstance(exception, DisallowedModelAdminLookup):
        return undeclared_lookup(request, exception)
    found = [told for kind, told in REFUSED.items() if isinstance(exception, kind)]
    told = found[0] if found else "The request is malformed."
    body = {"error": "invalid_request", "error_description": told}
    return JsonResponse(body, status=400, headers={"Cache-Control": "no-store"})


def undeclared_lookup(request: HttpRequest, error: Exception) -> HttpResponse:
    """A list of the admin was asked to filter by what it does not declare."""
    lookup = getattr(error, "lookup", "")
    text = f"This list cannot be filtered by {lookup!a}. Use the filters it shows."
    page = ("refused_filter.html", {"lookup": lookup, "list": request.path})
    return page_or_json(request, 400, page, ("invalid_request", text))


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500: 503 with Retry-After where trying again makes sense, 409
    where two changes met; a page for people at a page, JSON for programs.
    """
    status, told = judged(sys.exc_info()[1])
    page = (f"{status}.html", {"id": request_id.get()})
    return page_or_json(request, status, page, told, **RETRY.get(status, {}))


def judged(error: BaseException | None) -> tuple[int, tuple[str, str]]:
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
