"""What OAuth clients post to: revocation (RFC 7009), introspection (RFC 7662)."""

from __future__ import annotations

from abc import abstractmethod

from django.http import HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_post_parameters
from oauth2_provider.views.mixins import OAuthLibMixin
from oauthlib.common import Request

from accounts.errors import EndpointError, OAuthError
from accounts.http.client_address import client_address, in_networks, split_networks
from accounts.models import OAuthClient
from accounts.oauth.request_parameters import normalized_form, resource_objection
from accounts.oauth.toolkit.validator import PorticoValidator

FORM = "application/x-www-form-urlencoded"


@method_decorator(csrf_exempt, name="dispatch")
@method_decorator(
    sensitive_post_parameters("client_secret", "code", "refresh_token", "token"),
    name="dispatch",
)
class Endpoint(OAuthLibMixin, View):
    """What clients post forms to; answers are JSON and never cached."""

    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest) -> HttpResponse:
        """Tidy, find the client, serve, and turn a refusal into the RFC's JSON.

        No transaction is open here: each verb opens its own, for as long as it takes.
        On SQLite one around all of it would keep every other writer waiting.
        """
        try:
            form = self.parameters(request)
            self.check(form)
            response = self.serve(request, form, self.client(request))
        except EndpointError as problem:
            response = self.refusal(request, problem)
        except OAuthError as problem:
            response = self.refusal(request, EndpointError(problem.error, str(problem)))
        response["Cache-Control"] = "no-store"
        response["Pragma"] = "no-cache"
        return response

    def parameters(self, request: HttpRequest) -> QueryDict:
        """The form, tidied, also for the toolkit. Raises Problem."""
        if request.content_type != FORM:
            raise EndpointError(
                "invalid_request", _("Send the parameters as %s.") % FORM
            )
        if request.GET:
            text = _("Send the parameters in the body, not in the URL.")
            raise EndpointError("invalid_request", text)
        try:
            form = normalized_form(request.POST)
        except ValueError as error:
            raise EndpointError("invalid_request", str(error)) from error
        ways = ["authorization" in request.headers]
        ways += [name in form for name in ("client_secret", "client_assertion")]
        if sum(ways) > 1:
            text = _("Authenticate the client with one method only.")
            raise EndpointError("invalid_request", text)
        request.POST = form  # type: ignore[assignment]
        return form

    def refusal(self, request: HttpRequest, problem: EndpointError) -> HttpResponse:
        """RFC 6749 5.2; a failed Basic gets its challenge."""
        body = {"error": problem.error, "error_description": str(problem)}
        response = JsonResponse(body, status=problem.status)
        if problem.status == 401 and "authorization" in request.headers:
            response["WWW-Authenticate"] = 'Basic realm="oauth"'
        return response

    def client(self, request: HttpRequest) -> OAuthClient:
        """The client, authenticated as it registered to be. Raises Problem."""
        core = self.get_oauthlib_core()
        asked = Request(*core._extract_params(request))
        validator = PorticoValidator(http_request=request)
        if validator.client_authentication_required(asked):
            known = validator.authenticate_client(asked)
        else:
            known = validator.authenticate_client_id(asked.client_id, asked)
        if not known or not isinstance(asked.client, OAuthClient):
            raise EndpointError("invalid_client", "Client authentication failed.", 401)
        networks = split_networks(asked.client.networks)
        if networks and not in_networks(client_address(request), networks):
            text = _("This client cannot be used from this IP address.")
            raise EndpointError("unauthorized_client", text)
        return asked.client

    def check(self, form: QueryDict) -> None:
        """What is refused whoever asks. Raises Problem."""

    @abstractmethod
    def serve(
        self, request: HttpRequest, form: QueryDict, client: OAuthClient
    ) -> HttpResponse:
        """The endpoint's own work, for a client that is authenticated."""


def refuse_other_resource(form: QueryDict) -> None:
    """RFC 8707 2.2: within the grant, which is for our endpoint. Raises Problem."""
    text = resource_objection(form)
    if text:
        raise EndpointError("invalid_target", text)
