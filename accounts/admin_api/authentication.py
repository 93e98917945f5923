"""Who calls /api/v1/: a personal token with the scope `portico:admin`, never a cookie.

The token is judged as at /mcp: revocation, expiry, idle limit, networks.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Q
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from accounts.audit.record import record
from accounts.authorization.delegation import may_enter_admin
from accounts.authorization.mfa_enrollment import must_enroll_mfa
from accounts.http.client_address import client_address
from accounts.models import IssuedToken, User
from accounts.models.roles import ADMIN_API
from accounts.tokens.principal import Unauthenticated, authenticate_for_api

REFUSED = (
    "The token is not valid here. It is expired, revoked or for other networks, or "
    "lacks the scope portico:admin. Create one in the portal under Personal tokens."
)
NOT_STAFF = "Only staff may use this API. Ask a superuser for staff status."
NO_FACTOR = "Staff need a second factor. Add one in the portal under Security."
PRECISION = timedelta(minutes=1)
"""Precision of a token's "last used", as at /mcp."""


class PersonalTokenAuthentication(BaseAuthentication):
    """Sets `request.user` to the token's owner and `request.auth` to the principal."""

    def authenticate(self, request: Request) -> tuple[User, Any] | None:
        """None without a bearer token. Raises AuthenticationFailed."""
        scheme, _blank, raw = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not raw.strip():
            return None
        address = client_address(request._request)
        try:
            principal = authenticate_for_api(raw.strip()).restricted_to(address)
        except Unauthenticated as refusal:
            record_refusal(request, refusal)
            raise AuthenticationFailed(REFUSED) from refusal
        record_use(principal.jti, address)
        return User.objects.get(pk=principal.user_id), principal

    def authenticate_header(self, request: Request) -> str:
        """RFC 6750 3."""
        sent = "Authorization" in request.headers
        error = ', error="invalid_token"' if sent else ""
        return f'Bearer realm="portico", scope="{ADMIN_API}"{error}'


class PersonalTokenScheme(OpenApiAuthenticationExtension):
    """Names the scheme that config/views/openapi.py describes."""

    target_class = PersonalTokenAuthentication
    name = "personal"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}


def record_refusal(request: Request, refusal: Unauthenticated) -> None:
    """Record a refused credential, as /mcp does."""
    jti = str(refusal.claims.get("jti", ""))
    row = IssuedToken.objects.filter(jti=jti).select_related("user").first()
    record(
        "request.refused",
        actor=None if row is None else row.user,
        request=request._request,
        object="" if row is None else f"{row.kind} token of {row.username}",
        denied=refusal.reason,
        token_id=jti[:64],
        client_id=str(refusal.claims.get("client_id", "")),
    )


def record_use(jti: str, address: str) -> None:
    """Store when and from where the token was used: idle limits count from it."""
    now = timezone.now()
    outdated = Q(last_used_at=None) | Q(last_used_at__lt=now - PRECISION)
    tokens = IssuedToken.objects.filter(outdated, jti=jti)
    tokens.update(last_used_at=now, last_used_from=address)


class MayAdminister(BasePermission):
    """The owner may enter the admin at this moment."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """False without a token. Raises PermissionDenied."""
        actor: Any = request.user
        if actor is None:
            return False
        if must_enroll_mfa(actor):
            raise PermissionDenied(NO_FACTOR)
        if not may_enter_admin(actor):
            raise PermissionDenied(NOT_STAFF)
        return True
