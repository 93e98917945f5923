"""One answer for two kinds of asker: people at a page, and programs."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render


def page_or_json(
    request: HttpRequest,
    status: int,
    page: tuple[str, dict[str, Any]],
    told: tuple[str, str],
    **headers: str,
) -> HttpResponse:
    """`page` (template, context) where HTML is accepted, else `told` as JSON: (error,
    error_description) of RFC 6749 5.2. Not to be stored, in either form.
    """
    if "text/html" in request.headers.get("Accept", ""):
        template, context = page
        answer = render(request, template, context, status=status)
    else:
        error, text = told
        body = {"error": error, "error_description": text}
        answer = JsonResponse(body, status=status)
    for name, value in {"Cache-Control": "no-store", **headers}.items():
        answer[name] = value
    return answer
