"""The token revocation endpoint (RFC 7009)."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse, QueryDict

from accounts.errors import EndpointError
from accounts.models import IssuedToken, OAuthClient, TokenKind
from accounts.oauth.endpoint import Endpoint
from accounts.tokens.lookup import find_token


class RevocationEndpoint(Endpoint):
    """POST /oauth/revoke: 200 also for unknown tokens (RFC 7009 2.2)."""

    def serve(
        self, request: HttpRequest, form: QueryDict, client: OAuthClient
    ) -> HttpResponse:
        """Revoke an access token alone, but a refresh token with its family."""
        if "token" not in form:
            raise EndpointError("invalid_request", "token is missing.")
        row = find_token(str(form["token"]))
        if row is not None and row.client_id == client.client_id:
            tokens = IssuedToken.objects.filter(pk=row.pk)
            if row.kind == TokenKind.REFRESH:
                tokens = IssuedToken.objects.filter(family=row.family)
            tokens.revoke(
                actor=row.user or row.username, reason="revoked by the client"
            )
        return JsonResponse({})
