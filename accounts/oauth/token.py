"""The token endpoint; the toolkit redeems codes, Portico serves the other grants."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.utils.translation import gettext_lazy as _
from oauth2_provider.oauth2_backends import OAuthLibCore
from oauth2_provider.settings import oauth2_settings

from accounts.errors import EndpointError, InvalidGrant
from accounts.http.client_address import client_address
from accounts.models import IssuedVia, OAuthClient
from accounts.models.oauth import DEVICE_GRANT
from accounts.oauth.device import redeem_device_code, require_device_grant
from accounts.oauth.endpoint import Endpoint, refuse_other_resource
from accounts.oauth.toolkit.validator import PorticoValidator
from accounts.tokens.issue import TokenPair, allowed_scope, issue_tokens
from accounts.tokens.refresh import rotate_refresh_token

GrantHandler = Callable[[HttpRequest, QueryDict, OAuthClient], HttpResponse]

GRANTS = ("authorization_code", "client_credentials", "refresh_token", DEVICE_GRANT)


CODE_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}", re.ASCII)
"""The form of a code_verifier (RFC 7636 4.1)."""

ERROR_DESCRIPTIONS = {
    "invalid_client": _("Client authentication failed."),
    "invalid_grant": _(
        "The authorization code or its verifier is wrong, already used or expired."
    ),
    "unauthorized_client": _("The client is not registered for this grant type."),
}
"""Descriptions for errors that the toolkit raises without one."""


class TokenEndpoint(Endpoint):
    """POST /oauth/token."""

    def check(self, form: QueryDict) -> None:
        """Check grant_type. Raises EndpointError."""
        grant = form.get("grant_type")
        if grant not in GRANTS:
            known = ", ".join(GRANTS)
            code = "unsupported_grant_type" if grant else "invalid_request"
            raise EndpointError(code, f"grant_type is one of {known}.")

    def serve(
        self, request: HttpRequest, form: QueryDict, client: OAuthClient
    ) -> HttpResponse:
        """Call the handler of the grant type. Raises EndpointError, OAuthError."""
        handlers: dict[str, GrantHandler] = {
            "authorization_code": self.code,
            "client_credentials": self.client_credentials,
            "refresh_token": self.refresh,
            DEVICE_GRANT: self.device,
        }
        return handlers[str(form["grant_type"])](request, form, client)

    def code(
        self, request: HttpRequest, form: QueryDict, client: OAuthClient
    ) -> HttpResponse:
        """Redeem a code with the toolkit (OAuth 2.1 4.1.3); add error descriptions."""
        refuse_other_resource(form)
        verifier = form.get("code_verifier")
        if verifier and not CODE_VERIFIER.fullmatch(verifier):
            raise EndpointError(
                "invalid_grant", str(ERROR_DESCRIPTIONS["invalid_grant"])
            )
        with transaction.atomic():
            *_rest, body, status = authenticated_core(client).create_token_response(
                request
            )
        members = json.loads(body)
        if status != 200:
            error = members["error"]
            text = members.get("error_description") or ERROR_DESCRIPTIONS.get(
                error, error
            )
            return self.refusal(request, EndpointError(error, str(text), status))
        return JsonResponse(members)

    def refresh(
        self, request: HttpRequest, form: QueryDict, client: OAuthClient
    ) -> HttpResponse:
        """Rotate the refresh token; the grant's scope is the limit (RFC 6749 6)."""
        raw = form.get("refresh_token")
        if not raw:
            raise EndpointError("invalid_request", "refresh_token is missing.")
        refuse_other_resource(form)
        address, scope = client_address(request), form.get("scope", "")
        try:
            pair = rotate_refresh_token(
                raw, address=address, client_id=client.client_id, scope=scope
            )
        except InvalidGrant as error:
            return self.refusal(request, EndpointError(error.error, str(error)))
        client.update_last_used()
        return token_response(pair)

    def device(
        self, request: HttpRequest, form: QueryDict, client: OAuthClient
    ) -> HttpResponse:
        """Redeem a device code (RFC 8628 3.4).

        Refusals commit, because they store the time of the poll.
        """
        require_device_grant(client)
        with transaction.atomic():
            try:
                pair = redeem_device_code(client, form.get("device_code", ""), request)
            except EndpointError as error:
                return self.refusal(request, error)
        return token_response(pair)

    def client_credentials(
        self, request: HttpRequest, form: QueryDict, client: OAuthClient
    ) -> HttpResponse:
        """Issue an access token for the client's service account (OAuth 2.1 4.2).

        Only to clients that prove who they are: a public client_id is no secret.
        """
        account = client.service_account
        allowed = "client_credentials" in client.grant_types
        confidential = client.client_type == OAuthClient.CLIENT_CONFIDENTIAL
        if account is None or not (account.is_active and allowed and confidential):
            text = "The client has no active service account for this grant."
            raise EndpointError("unauthorized_client", text)
        refuse_other_resource(form)
        pair = issue_tokens(
            account,
            issued_via=IssuedVia.CLIENT_CREDENTIALS,
            scope=allowed_scope(account, form.get("scope", "")),
            client_id=client.client_id,
            address=client_address(request),
            refresh=False,
        )
        client.update_last_used()
        return token_response(pair)


def authenticated_core(client: OAuthClient) -> OAuthLibCore:
    """The toolkit's core for an authenticated client.

    A second authentication would refuse the client's assertion as a replay.
    """
    server = oauth2_settings.OAUTH2_SERVER_CLASS
    return OAuthLibCore(
        server(PorticoValidator(client), **oauth2_settings.server_kwargs)
    )


def token_response(pair: TokenPair) -> JsonResponse:
    """RFC 6749 5.1; always includes `scope`."""
    body = {
        "access_token": pair.access,
        "token_type": "Bearer",
        "expires_in": pair.expires_in,
        "scope": pair.row.scope,
    }
    if pair.refresh:
        body["refresh_token"] = pair.refresh
    return JsonResponse(body)
