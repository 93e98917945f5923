"""DatabaseAway: when the database cannot answer, 503 with Retry-After, never a 500."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse

from accounts.keymaterial import KeyUnreadable

logger = logging.getLogger(__name__)

SENTENCES: dict[type[Exception], str] = {
    OperationalError: "The database cannot be reached or is busy; try again.",
    InterfaceError: "The database cannot be reached; try again.",
    KeyUnreadable: "Tokens cannot be signed: run manage.py doctor on the server.",
}


class DatabaseAway:
    """Outermost, so that sessions and sign-in are covered too."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Pass the request on."""
        return self.get_response(request)

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponse | None:
        """Answer for what is known to pass by itself."""
        for kind, sentence in SENTENCES.items():
            if isinstance(exception, kind):
                logger.error("%s: %s", sentence, exception)
                body = {"error": "temporarily_unavailable"}
                body["error_description"] = sentence
                headers = {"Retry-After": "5", "Cache-Control": "no-store"}
                return JsonResponse(body, status=503, headers=headers)
        return None
