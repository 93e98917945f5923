"""Django middleware: tells the audit which request is being served.

Model methods write events too, such as `token.revoked`. They get no request, so they
read it here.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponseBase

from accounts.http.client_address import client_address
from accounts.models.audit.origins import RequestOrigin, origin_var


class RequestOriginMiddleware:
    """Sets the origin of all events that are written while a request is served."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        token = origin_var.set(origin_of(request))
        try:
            response: HttpResponseBase = self.get_response(request)
            return response
        finally:
            origin_var.reset(token)


def origin_of(request: HttpRequest) -> RequestOrigin:
    def user() -> Any:
        """Read late: sign-in and the API set it while the request is served."""
        known = getattr(request, "user", None)
        return known if known is not None and known.is_authenticated else None

    def token_id() -> str:
        """Of the Principal that DRF sets for /api/v1/."""
        return str(getattr(getattr(request, "auth", None), "jti", ""))

    address, request_id = client_address(request), request_id_of(request)
    return RequestOrigin(address, request_id, user, token_id)


def request_id_of(request: HttpRequest) -> str:
    return request.headers.get("X-Request-ID", "")[:64]
