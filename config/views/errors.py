"""Django's error responses: 400, 403, 404, 409, 500 or 503."""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import DisallowedHost, RequestDataTooBig, TooManyFieldsSent
from django.db import (
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
)
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views import csrf

from accounts.crypto.encryption import KeyUnreadable
from accounts.http.responses import (
    ADMIN_API_PATH,
    error_page,
    page_or_json,
    problem_response,
)
from config.views.health import UNFIT, undeclared_lookup
from mcp_bridge.http.request_id import request_id

TEMPORARY: dict[type[Exception], str] = {
    OperationalError: "The database cannot be reached or is busy; try again.",
    InterfaceError: "The database cannot be reached; try again.",
    InternalError: "The database takes no changes just now; try again.",
    KeyUnreadable: "Tokens cannot be signed: run manage.py doctor on the server.",
}
"""Exceptions that a retry or an operator can resolve -> error_description."""


CONFLICTS = {
    "23503",
    "23505",
    "SQLITE_CONSTRAINT_FOREIGNKEY",
    "SQLITE_CONSTRAINT_PRIMARYKEY",
    "SQLITE_CONSTRAINT_UNIQUE",
}
"""Conflicts of concurrent changes: a row was deleted while another began to refer to
it, or two requests created the same row. Both had passed the checks of their forms."""


RETRY = {503: {"Retry-After": "5"}}


REFUSED: dict[type[Exception], str] = {
    RequestDataTooBig: "The body is too large.",
    TooManyFieldsSent: "The form has too many fields.",
    DisallowedHost: "This host name is not in ALLOWED_HOSTS.",
}
"""Exceptions of Django's own limits -> error_description."""


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler400, for requests that Django refuses before a view runs.

    People get a page, programs JSON.
    """
    if isinstance(exception, DisallowedModelAdminLookup):
        return undeclared_lookup(request, exception)
    texts = [text for kind, text in REFUSED.items() if isinstance(exception, kind)]
    text = texts[0] if texts else "The request is malformed."
    if isinstance(exception, RequestDataTooBig):
        page = ("413.html", {"largest": settings.DATA_UPLOAD_MAX_MEMORY_SIZE})
        return page_or_json(request, 413, page, ("invalid_request", text))
    context: dict[str, Any] = {"many_fields": isinstance(exception, TooManyFieldsSent)}
    if isinstance(exception, DisallowedHost):
        host = request.META.get("HTTP_HOST", "")
        context = {"host": host[:255], "address": settings.ISSUER_URL}
    page = ("400.html", context)
    return page_or_json(request, 400, page, ("invalid_request", text))


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler403."""
    return error_page(request, 403, "403.html", {})


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler404."""
    if request.path.startswith(ADMIN_API_PATH):
        return problem_response(404, "There is no such address; /api/docs/ lists all.")
    return error_page(request, 404, "404.html", {})


SIGN_IN_FORMS = ("/accounts/login/", "/accounts/oidc/", "/accounts/2fa/authenticate/")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Django's CSRF_FAILURE_VIEW: 403, or continue if the user is signed in already.

    A sign-in changes the token, so a sign-in form in another tab no longer fits.
    """
    if request.user.is_authenticated and request.path.startswith(SIGN_IN_FORMS):
        target = request.POST.get("next") or request.GET.get("next", "")
        # The page checks the target and redirects there.
        return redirect_to_login(target) if target else redirect("account_login")
    return csrf.csrf_failure(request, reason)


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500: 503 with Retry-After if a retry can help, 409 for conflicts.

    People on a page get a page; programs get JSON.
    """
    status, problem = classify_error(sys.exc_info()[1])
    page = (f"{status}.html", {"id": request_id.get()})
    return page_or_json(request, status, page, problem, **RETRY.get(status, {}))


def classify_error(error: BaseException | None) -> tuple[int, tuple[str, str]]:
    """Map the exception of a view to status and (error, error_description)."""
    for kind, text in TEMPORARY.items():
        if isinstance(error, kind):
            return 503, ("temporarily_unavailable", text)
    if isinstance(error, IntegrityError) and state_of(error.__cause__) in CONFLICTS:
        text = "Something this depends on was changed at the same moment; try again."
        return 409, ("conflict", text)
    if isinstance(error, UNFIT) or "integer string conversion" in str(error):
        return 400, ("invalid_request", "A value is too large or has odd characters.")
    return 500, ("server_error", "Something broke; it is in the server's log.")


def state_of(error: BaseException | None) -> str:
    """The SQLSTATE of PostgreSQL or the error name of SQLite; empty if neither."""
    name = getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None)
    return str(name or "")
