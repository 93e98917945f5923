"""Introspection of a token by a resource server (RFC 7662)."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse, QueryDict

from accounts.errors import EndpointError
from accounts.http.client_address import client_address
from accounts.models import OAuthClient
from accounts.oauth.endpoint import Endpoint
from accounts.tokens.principal import Unauthenticated, load_principal, verify_access


class IntrospectionEndpoint(Endpoint):
    """POST /oauth/introspect, for confidential clients that an administrator knows.

    Anybody may register, so a secret alone proves nothing.
    """

    def serve(
        self, request: HttpRequest, form: QueryDict, client: OAuthClient
    ) -> HttpResponse:
        """`active` and, of a live token, what it is (RFC 7662 2.2)."""
        if client.client_type != OAuthClient.CLIENT_CONFIDENTIAL:
            raise EndpointError("invalid_client", "Introspection needs a secret.", 401)
        if not client.verified:
            text = "Only clients that an administrator approved may introspect."
            raise EndpointError("unauthorized_client", text, 403)
        if "token" not in form:
            raise EndpointError("invalid_request", "token is missing.")
        return JsonResponse(
            self.introspection(str(form["token"]), client_address(request))
        )

    def introspection(self, raw: str, address: str) -> dict[str, Any]:
        """What the token may do from `address`, judged as at /mcp."""
        try:
            claims = verify_access(raw)
            principal = load_principal(claims).restricted_to(address)
        except Unauthenticated:
            return {"active": False}
        kept = ("iss", "aud", "sub", "client_id", "jti", "iat", "exp", "scope")
        known = {name: claims[name] for name in kept if name in claims}
        return {
            "active": True,
            "token_type": "Bearer",
            "username": principal.username,
            **known,
        }
