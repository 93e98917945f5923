"""The token introspection endpoint (RFC 7662)."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse, QueryDict

from accounts.errors import EndpointError
from accounts.http.client_address import client_address
from accounts.models import OAuthClient
from accounts.oauth.endpoint import Endpoint
from accounts.tokens.principal import Unauthenticated, load_principal, verify_access


class IntrospectionEndpoint(Endpoint):
    """POST /oauth/introspect, for verified confidential clients.

    A secret alone proves nothing, because registration may be open to all.
    """

    def serve(
        self, request: HttpRequest, form: QueryDict, client: OAuthClient
    ) -> HttpResponse:
        """RFC 7662 2.2. Raises EndpointError."""
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
        """The response for a token used from `address`, by the checks of /mcp."""
        try:
            claims = verify_access(raw)
            principal = load_principal(claims).restricted_to(address)
        except Unauthenticated:
            return {"active": False}
        names = ("iss", "aud", "sub", "client_id", "jti", "iat", "exp", "scope")
        return {
            "active": True,
            "token_type": "Bearer",
            "username": principal.username,
            **{name: claims[name] for name in names if name in claims},
        }
