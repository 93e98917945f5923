"""Error responses as a page for browsers and as JSON for programs."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render
from django.utils import translation
from django.utils.cache import patch_vary_headers

from accounts.http.help.links import help_url
from accounts.http.language import reader_language


def error_page(
    request: HttpRequest, status: int, template: str, context: dict[str, Any]
) -> HttpResponse:
    """Render in the reader's language, also where programs get English.

    Lazy texts in `context` are translated, too.
    """
    language = reader_language(request)
    with translation.override(language):
        response = render(request, template, context, status=status)
    response["Content-Language"] = language
    patch_vary_headers(response, ("Accept-Language", "Cookie"))
    return response


ADMIN_API_PATH = "/api/v1/"
PROBLEM_TYPE = "application/problem+json"


def problem_body(status: int, detail: str, **members: Any) -> dict[str, Any]:
    """The members of RFC 9457 3.1; `type` is a page that explains the text, if any."""
    link, title = help_url(detail) or "about:blank", HTTPStatus(status).phrase
    return {
        "type": link,
        "title": title,
        "status": status,
        "detail": detail,
        **members,
    }


def problem_response(status: int, detail: str, **members: Any) -> JsonResponse:
    """An error of /api/v1/ that no view of it answers."""
    body = problem_body(status, detail, **members)
    response = JsonResponse(body, status=status, content_type=PROBLEM_TYPE)
    response["Cache-Control"] = "no-store"
    return response


def error_body(error: str, text: str) -> dict[str, str]:
    """The members of RFC 6749 5.2; `error_uri` if a page explains the text."""
    body = {"error": error, "error_description": text}
    link = help_url(text)
    return {**body, "error_uri": link} if link else body


def page_or_json(
    request: HttpRequest,
    status: int,
    page: tuple[str, dict[str, Any]],
    error: tuple[str, str],
    **headers: str,
) -> HttpResponse:
    """Render `page` (template, context) if the client accepts HTML, else `error`.

    `error` is (error, error_description) of RFC 6749 5.2. No cache may store either.
    """
    response: HttpResponse
    if request.path.startswith(ADMIN_API_PATH):
        response = problem_response(status, error[1], error=error[0])
    elif "text/html" in request.headers.get("Accept", ""):
        template, context = page
        link = help_url(str(context.get("text", "")) or error[1])
        response = error_page(request, status, template, {"help": link, **context})
    else:
        response = JsonResponse(error_body(*error), status=status)
    for name, value in {"Cache-Control": "no-store", **headers}.items():
        response[name] = value
    return response


class NotAllowedPageMiddleware:
    """A page instead of an empty 405, for readers who open the address of a form."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase = self.get_response(request)
        empty = response.status_code == 405 and not getattr(response, "content", b"-")
        if not empty or "text/html" not in request.headers.get("Accept", ""):
            return response
        page = error_page(request, 405, "405.html", {})
        page["Allow"] = response["Allow"]
        return page


SCOPE_KEY = "portico.refused_body"
"""mcp_bridge/http/request_body.py sets it: a browser's request goes on without body."""


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
    response = error_page(request, refused.status, f"{refused.status}.html", context)
    response["Connection"], response["Cache-Control"] = "close", "no-store"
    return response
