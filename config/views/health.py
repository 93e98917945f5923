"""/healthz, and the response to undeclared lookups."""

from __future__ import annotations

from django.db import DataError
from django.http import HttpRequest, HttpResponse, JsonResponse

from accounts.http.responses import page_or_json

UNFIT = (DataError, OverflowError)
"""The database or its driver refuses a value of the request: a number too large for
its column, or a NUL. Forms do not check the keys of rows for these."""


def healthz(request: HttpRequest) -> JsonResponse:
    """200 as soon as the process serves requests; does not use the database."""
    return JsonResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})


def undeclared_lookup(request: HttpRequest, error: Exception) -> HttpResponse:
    """400 for a filter that a list of the admin does not declare."""
    lookup = getattr(error, "lookup", "")
    text = f"This list cannot be filtered by {lookup!a}. Use the filters it shows."
    page = ("refused_filter.html", {"lookup": lookup, "list": request.path})
    return page_or_json(request, 400, page, ("invalid_request", text))
