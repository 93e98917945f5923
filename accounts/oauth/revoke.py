"""Revocation of a token by its client (RFC 7009)."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse, QueryDict

from accounts.errors import EndpointError
from accounts.models import IssuedToken, OAuthClient, TokenKind
from accounts.oauth.endpoint import Endpoint
from accounts.tokens.lookup import find_token


class RevocationEndpoint(Endpoint):
    """POST /oauth/revoke: 200 whether or not there was something to revoke."""

    def serve(
        self, request: HttpRequest, form: QueryDict, client: OAuthClient
    ) -> HttpResponse:
        """A refresh token takes its family; an access token goes alone."""
        if "token" not in form:
            raise EndpointError("invalid_request", "token is missing.")
        row = find_token(str(form["token"]))
        if row is not None and row.client_id == client.client_id:
            chosen = IssuedToken.objects.filter(pk=row.pk)
            if row.kind == TokenKind.REFRESH:
                chosen = IssuedToken.objects.filter(family=row.family)
            chosen.revoke(
                actor=row.user or row.username, reason="revoked by the client"
            )
        return JsonResponse({})
