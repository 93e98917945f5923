"""/healthz, and what Django answers when something breaks: 503 for what passes, 409
for changes that met, 400 for values that no column can hold.
"""

from __future__ import annotations

from django.db import (
    DataError,
)
from django.http import HttpRequest, HttpResponse, JsonResponse

from accounts.http.responses import page_or_json

UNFIT = (DataError, OverflowError)
"""The database or its driver refuses a value of the request: a number too large for
its column, a NUL. Forms look for neither in the keys of rows that they are sent."""


def healthz(request: HttpRequest) -> JsonResponse:
    """200 as soon as requests are served; asks nothing of the database."""
    return JsonResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})


def undeclared_lookup(request: HttpRequest, error: Exception) -> HttpResponse:
    """A list of the admin was asked to filter by what it does not declare."""
    lookup = getattr(error, "lookup", "")
    text = f"This list cannot be filtered by {lookup!a}. Use the filters it shows."
    page = ("refused_filter.html", {"lookup": lookup, "list": request.path})
    return page_or_json(request, 400, page, ("invalid_request", text))
