"""A page for a browser whose request body was refused (RFC 9110 15.5.9, 15.5.14).

mcp_bridge/http/request_body.py refuses bodies before Django reads them, and answers
programs itself. It passes a browser's request on without the body.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

SCOPE_KEY = "portico.refused_body"


class RefusedBody(NamedTuple):
    """Why the body was refused: 413 (too large) or 408 (too slow)."""

    status: int
    largest: int
    """The limit in bytes."""


class RefusedBodyMiddleware:
    """Answer a request that has a RefusedBody in its ASGI scope."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        refused = getattr(request, "scope", {}).get(SCOPE_KEY)
        return refusal_page(request, refused) if refused else self.get_response(request)


def refusal_page(request: HttpRequest, refused: RefusedBody) -> HttpResponse:
    """The page; it closes the connection, because the rest of the body may come."""
    context = {"largest": refused.largest}
    response = render(request, f"{refused.status}.html", context, status=refused.status)
    response["Connection"], response["Cache-Control"] = "close", "no-store"
    return response
