"""The token API without the final slash of its paths.

Django's CommonMiddleware would redirect. A client repeats a redirected POST as a GET
without its body (RFC 9110 15.4.2).
"""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.urls import is_valid_path

API = "/api/"


class TrailingSlashMiddleware:
    """Add the slash to paths below /api/ that exist only with it.

    Comes before the middleware that reads the path, such as the rate limits.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        path = f"{request.path_info}/"
        if path.startswith(API) and not path.endswith("//") and is_valid_path(path):
            request.path_info, request.path = path, f"{request.path}/"
        return self.get_response(request)
