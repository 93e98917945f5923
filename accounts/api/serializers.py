"""Request and response bodies of the token endpoints."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from rest_framework import serializers
from rest_framework_simplejwt.serializers import TokenObtainSerializer

from accounts.authentication.lockout import end_attempt, ending_attempt
from accounts.authentication.mfa import check_otp
from accounts.http.client_address import client_address
from accounts.models import IssuedVia
from accounts.tokens.issue import (
    MAX_TOKEN_LENGTH,
    TokenPair,
    allowed_scope,
    issue_tokens,
)
from accounts.tokens.refresh import revoke_family, rotate_refresh_token, verify_token

MAX_PASSWORD_LENGTH = 1_024


def token_pair_body(pair: TokenPair) -> dict[str, Any]:
    """SimpleJWT's `access` and `refresh` with RFC 6749 5.1's other members."""
    return {
        "access": pair.access,
        "refresh": pair.refresh,
        "token_type": "Bearer",
        "expires_in": pair.expires_in,
        "scope": pair.row.scope,
    }


class TokenSerializer(serializers.Serializer[Any]):
    @property
    def address(self) -> str:
        """The client's IP address (accounts/http/client_address.py)."""
        request: HttpRequest | None = self.context.get("request")
        return client_address(request)


class ObtainSerializer(TokenObtainSerializer, TokenSerializer):
    """Takes username, password, optional otp and scope; returns a token pair."""

    scope = serializers.CharField(required=False, allow_blank=True, default="")

    otp = serializers.CharField(
        required=False, allow_blank=True, max_length=32, default=""
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"] = serializers.CharField(max_length=150)
        self.fields["password"] = serializers.CharField(
            write_only=True, trim_whitespace=False, max_length=MAX_PASSWORD_LENGTH
        )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Raises OAuthError, RateLimited, AuthenticationFailed."""
        request = self.context["request"]
        with ending_attempt(request):
            super().validate(attrs)
            check_otp(request, self.user, attrs["otp"])
            pair = issue_tokens(
                self.user,
                issued_via=IssuedVia.PASSWORD,
                scope=allowed_scope(self.user, attrs["scope"]),
                address=self.address,
                also=lambda: end_attempt(request, self.user.username),
            )
        return token_pair_body(pair)


class RefreshSerializer(TokenSerializer):
    refresh = serializers.CharField(max_length=MAX_TOKEN_LENGTH)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Raises InvalidGrant."""
        return token_pair_body(
            rotate_refresh_token(attrs["refresh"], address=self.address)
        )


class VerifySerializer(TokenSerializer):
    token = serializers.CharField(max_length=MAX_TOKEN_LENGTH)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Apply the checks of /mcp and /api/token/refresh/. Raises InvalidGrant."""
        verify_token(attrs["token"], self.address)
        return {}


class BlacklistSerializer(TokenSerializer):
    refresh = serializers.CharField(max_length=MAX_TOKEN_LENGTH)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Revoke every token of the same family. Raises InvalidGrant."""
        revoke_family(attrs["refresh"], address=self.address)
        return {}
