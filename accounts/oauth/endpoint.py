"""The base class of the endpoints that OAuth clients post forms to."""

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
SECRET_PARAMETERS = (
    "client_assertion",
    "client_secret",
    "code",
    "code_verifier",
    "device_code",
    "refresh_token",
    "token",
)
"""Left out of error reports."""


@method_decorator(csrf_exempt, name="dispatch")
@method_decorator(sensitive_post_parameters(*SECRET_PARAMETERS), name="dispatch")
class Endpoint(OAuthLibMixin, View):
    """Authenticates the client; responses are JSON and are not cached."""

    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest) -> HttpResponse:
        """Parse, authenticate the client, serve; map OAuthError to RFC 6749 5.2 JSON.

        Each grant opens a transaction itself. On SQLite, a transaction around the whole
        request would block all other writers.
        """
        try:
            form = self.parameters(request)
            self.check(form)
            response = self.serve(request, form, self.client(request))
        except EndpointError as error:
            response = self.refusal(request, error)
        except OAuthError as error:
            response = self.refusal(request, EndpointError(error.error, str(error)))
        response["Cache-Control"] = "no-store"
        response["Pragma"] = "no-cache"
        return response

    def parameters(self, request: HttpRequest) -> QueryDict:
        """The normalized form, which replaces request.POST. Raises EndpointError."""
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
        methods = [sends_basic(request)]
        methods += [name in form for name in ("client_secret", "client_assertion")]
        if sum(methods) > 1:
            text = _("Authenticate the client with one method only.")
            raise EndpointError("invalid_request", text)
        request.POST = form  # type: ignore[assignment]
        return form

    def refusal(self, request: HttpRequest, error: EndpointError) -> HttpResponse:
        """RFC 6749 5.2; a failed Authorization header gets a Basic challenge."""
        body = {"error": error.error, "error_description": str(error)}
        response = JsonResponse(body, status=error.status)
        if error.status == 401 and "authorization" in request.headers:
            response["WWW-Authenticate"] = 'Basic realm="oauth"'
        return response

    def client(self, request: HttpRequest) -> OAuthClient:
        """The client, authenticated as registered. Raises EndpointError."""
        core = self.get_oauthlib_core()
        oauth_request = Request(*core._extract_params(request))
        validator = PorticoValidator(http_request=request)
        if validator.client_authentication_required(oauth_request):
            valid = validator.authenticate_client(oauth_request)
        else:
            client_id = oauth_request.client_id
            valid = validator.authenticate_client_id(client_id, oauth_request)
        client = oauth_request.client
        if not valid or not isinstance(client, OAuthClient):
            raise EndpointError("invalid_client", "Client authentication failed.", 401)
        networks = split_networks(client.networks)
        if networks and not in_networks(client_address(request), networks):
            text = _("This client cannot be used from this IP address.")
            raise EndpointError("unauthorized_client", text)
        return client

    def check(self, form: QueryDict) -> None:
        """Check the form before client authentication. Raises EndpointError."""

    @abstractmethod
    def serve(
        self, request: HttpRequest, form: QueryDict, client: OAuthClient
    ) -> HttpResponse:
        """Answer an authenticated client. Raises EndpointError, OAuthError."""


def sends_basic(request: HttpRequest) -> bool:
    """Whether the Authorization header authenticates a client.

    Some clients send the headers that are configured for /mcp to every endpoint.
    """
    scheme = request.headers.get("Authorization", "").partition(" ")[0]
    return scheme.lower() == "basic"


def refuse_other_resource(form: QueryDict) -> None:
    """Raise EndpointError if `resource` is not this MCP endpoint (RFC 8707 2.2)."""
    text = resource_objection(form)
    if text:
        raise EndpointError("invalid_target", text)
