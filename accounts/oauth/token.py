"""The token endpoint: codes through the toolkit, the other grants by our own verbs."""

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
from accounts.oauth.device import redeem_device_code
from accounts.oauth.endpoint import Endpoint, refuse_other_resource
from accounts.oauth.toolkit.validator import PorticoValidator
from accounts.tokens.issue import TokenPair, allowed_scope, issue_tokens
from accounts.tokens.refresh import rotate_refresh_token

GrantHandler = Callable[[HttpRequest, QueryDict, OAuthClient], HttpResponse]

GRANTS = ("authorization_code", "client_credentials", "refresh_token", DEVICE_GRANT)


CODE_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}", re.ASCII)
"""RFC 7636 4.1."""

ERROR_DESCRIPTIONS = {
    "invalid_client": _("Client authentication failed."),
    "invalid_grant": _(
        "The authorization code or its verifier is wrong, already used or expired."
    ),
    "unauthorized_client": _("The client is not registered for this grant type."),
}
"""What the toolkit refuses without a word."""


class TokenEndpoint(Endpoint):
    """POST /oauth/token."""

    def check(self, form: QueryDict) -> None:
        """A grant type that is served. Raises Problem."""
        grant = form.get("grant_type")
        if grant not in GRANTS:
            known = ", ".join(GRANTS)
            code = "unsupported_grant_type" if grant else "invalid_request"
            raise EndpointError(code, f"grant_type is one of {known}.")

    def serve(
        self, request: HttpRequest, form: QueryDict, client: OAuthClient
    ) -> HttpResponse:
        """By grant type."""
        verbs: dict[str, GrantHandler] = {
            "authorization_code": self.code,
            "client_credentials": self.client_credentials,
            "refresh_token": self.refresh,
            DEVICE_GRANT: self.device,
        }
        return verbs[str(form["grant_type"])](request, form, client)

    def code(
        self, request: HttpRequest, form: QueryDict, client: OAuthClient
    ) -> HttpResponse:
        """OAuth 2.1 4.1.3, by the toolkit; its refusals get our words."""
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
        answer = json.loads(body)
        if status != 200:
            error = answer["error"]
            text = answer.get("error_description") or ERROR_DESCRIPTIONS.get(
                error, error
            )
            return self.refusal(request, EndpointError(error, str(text), status))
        answer.pop("resource", None)
        return JsonResponse(answer)

    def refresh(
        self, request: HttpRequest, form: QueryDict, client: OAuthClient
    ) -> HttpResponse:
        """Rotate; scope and audience stay those of the grant (RFC 6749 6)."""
        raw = form.get("refresh_token")
        if not raw:
            raise EndpointError("invalid_request", "refresh_token is missing.")
        refuse_other_resource(form)
        told = {"address": client_address(request), "scope": form.get("scope", "")}
        try:
            pair = rotate_refresh_token(raw, client_id=client.client_id, **told)
        except InvalidGrant as error:
            return self.refusal(request, EndpointError(error.error, str(error)))
        client.update_last_used()
        return token_response(pair)

    def device(
        self, request: HttpRequest, form: QueryDict, client: OAuthClient
    ) -> HttpResponse:
        """RFC 8628 3.4; a refusal commits too, for it notes when the client polled."""
        if DEVICE_GRANT not in client.grant_types:
            raise EndpointError("unauthorized_client", "Not registered for this grant.")
        with transaction.atomic():
            try:
                pair = redeem_device_code(client, form.get("device_code", ""), request)
            except EndpointError as problem:
                return self.refusal(request, problem)
        return token_response(pair)

    def client_credentials(
        self, request: HttpRequest, form: QueryDict, client: OAuthClient
    ) -> HttpResponse:
        """Client credentials: as the service account, without a refresh token."""
        account = client.service_account
        allowed = "client_credentials" in client.grant_types
        if not allowed or account is None or not account.is_active:
            raise EndpointError("unauthorized_client", "It has no service account.")
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
    """The toolkit, for a client that is authenticated already.

    A second look would take a signed assertion for a replay, inside the transaction.
    """
    server = oauth2_settings.OAUTH2_SERVER_CLASS
    return OAuthLibCore(
        server(PorticoValidator(client), **oauth2_settings.server_kwargs)
    )


def token_response(pair: TokenPair) -> JsonResponse:
    """RFC 6749 5.1; the scope is always told."""
    told = {
        "access_token": pair.access,
        "token_type": "Bearer",
        "expires_in": pair.expires_in,
        "scope": pair.row.scope,
    }
    if pair.refresh:
        told["refresh_token"] = pair.refresh
    return JsonResponse(told)
