"""What the token endpoints take and give; the verbs are in accounts.tokens.issue."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from rest_framework import serializers
from rest_framework_simplejwt.serializers import TokenObtainSerializer

from accounts.authentication.lockout import clear_failures
from accounts.authentication.mfa import check_otp
from accounts.http.client_address import client_address
from accounts.models import IssuedVia
from accounts.tokens.issue import TokenPair, allowed_scope, issue_tokens
from accounts.tokens.refresh import revoke_family, rotate_refresh_token, verify_token

MAX_TOKEN_LENGTH = 16_384
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
    """A body with one token in it."""

    @property
    def address(self) -> str:
        """Where the request came from."""
        request: HttpRequest | None = self.context.get("request")
        return client_address(request)


class ObtainSerializer(TokenObtainSerializer, TokenSerializer):
    """username, password, perhaps otp and a narrower scope -> a pair of tokens."""

    scope = serializers.CharField(
        required=False, allow_blank=True, max_length=4_096, default=""
    )

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
        """Authenticate, then issue."""
        super().validate(attrs)
        check_otp(self.context["request"], self.user, attrs["otp"])
        scope = allowed_scope(self.user, attrs["scope"])
        pair = issue_tokens(
            self.user, issued_via=IssuedVia.PASSWORD, scope=scope, address=self.address
        )
        clear_failures(self.context["request"], self.user.username)
        return token_pair_body(pair)


class RefreshSerializer(TokenSerializer):
    """refresh -> the next pair."""

    refresh = serializers.CharField(max_length=MAX_TOKEN_LENGTH)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Redeem it."""
        return token_pair_body(
            rotate_refresh_token(attrs["refresh"], address=self.address)
        )


class VerifySerializer(TokenSerializer):
    """token -> nothing, if it counts."""

    token = serializers.CharField(max_length=MAX_TOKEN_LENGTH)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Check it as /mcp and /api/token/refresh/ would."""
        verify_token(attrs["token"], self.address)
        return {}


class BlacklistSerializer(TokenSerializer):
    """refresh -> its family ended."""

    refresh = serializers.CharField(max_length=MAX_TOKEN_LENGTH)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """End it and all that grew from the same sign-in."""
        revoke_family(attrs["refresh"], address=self.address)
        return {}
