"""/api/token/ obtain, refresh, verify, blacklist (SimpleJWT) and the JWK Set.

Errors are those of RFC 6749 5.2, in JSON; nothing is cached (OAuth 2.1 3.2.3).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.views import TokenViewBase

from accounts.api import serializers
from accounts.authentication.lockout import lockout_refusal
from accounts.errors import InvalidScope, OAuthError
from accounts.rate_limits.errors import RateLimited
from accounts.tokens.jwts import public_jwks

WRONG_CREDENTIALS = "The user name or the password is wrong."
"""The same text for both causes, so that it does not reveal which names exist."""


def validation_message(error: exceptions.ValidationError) -> str:
    """All field errors in one line."""
    detail: Any = error.detail
    if isinstance(detail, dict):
        pairs: Iterable[tuple[str, Any]] = detail.items()
        return " ".join(f"{name}: {' '.join(map(str, t))}" for name, t in pairs)
    return " ".join(map(str, detail))


def oauth_error_of(error: Exception) -> tuple[int, str, str] | None:
    """(HTTP status, RFC 6749 5.2 error, description); None for other exceptions."""
    match error:
        case InvalidScope():
            return 400, error.error, str(error)
        case OAuthError():
            return 401, error.error, str(error)
        case RateLimited():
            return error.status, error.error, str(error)
        case exceptions.ValidationError():
            return 400, "invalid_request", validation_message(error)
        case exceptions.AuthenticationFailed() | TokenError():
            return 401, "invalid_grant", WRONG_CREDENTIALS
        case RecursionError():
            return 400, "invalid_request", "The body is nested too deeply."
        case exceptions.APIException():
            return error.status_code, "invalid_request", str(error.detail)
    return None


class TokenView(TokenViewBase):
    """Error format and cache headers of the four endpoints."""

    def handle_exception(self, exc: Exception) -> Response:
        """Map known exceptions to RFC 6749 5.2 JSON and raise all others again."""
        exc = lockout_refusal(self.request) or exc
        mapped = oauth_error_of(exc)
        if mapped is None:
            raise exc
        status, error, text = mapped
        body = {"error": error, "error_description": text, "detail": text}
        response = Response(body, status=status)
        response.exception = True
        if isinstance(exc, RateLimited):
            response["Retry-After"] = str(exc.wait)
        if status == 401:
            response["WWW-Authenticate"] = f'Bearer realm="api", error="{error}"'
        return response

    def finalize_response(
        self, request: Any, response: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Forbid caching; error responses pass through here too."""
        response = super().finalize_response(request, response, *args, **kwargs)
        response["Cache-Control"] = "no-store"
        response["Pragma"] = "no-cache"
        return response


class ObtainView(TokenView):
    """POST username, password, optional otp and scope: issues a token pair."""

    serializer_class = serializers.ObtainSerializer


class RefreshView(TokenView):
    """POST refresh: rotates the refresh token and issues a new pair."""

    serializer_class = serializers.RefreshSerializer


class VerifyView(TokenView):
    """POST token: 200 if the token is live, else 401."""

    serializer_class = serializers.VerifySerializer


class BlacklistView(TokenView):
    """POST refresh: revokes the token's family."""

    serializer_class = serializers.BlacklistSerializer


@csrf_exempt
@require_safe
def jwks(request: HttpRequest) -> JsonResponse:
    """GET /oauth/jwks.json: the public keys (RFC 7517 5)."""
    response = JsonResponse(public_jwks())
    response["Cache-Control"] = "public, max-age=60"
    return response
