"""The authorization endpoint: sign-in, consent, redirect.

OAuth 2.1 4.1.1, 7.11, 7.12; RFC 8707; RFC 9207. Plain HTML forms, no JavaScript.
"""

from __future__ import annotations

import re
from typing import Any, cast

from django.contrib.auth import logout
from django.contrib.auth.mixins import LoginRequiredMixin
from django.contrib.auth.views import redirect_to_login
from django.db import transaction
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.utils.decorators import method_decorator
from django.utils.http import MAX_URL_LENGTH
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, gettext_noop
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from oauth2_provider.exceptions import FatalClientError, OAuthToolkitError
from oauth2_provider.http import OAuth2ResponseRedirect
from oauth2_provider.views.mixins import OAuthLibMixin
from oauthlib.oauth2.rfc6749.errors import (
    AccessDeniedError,
    CustomOAuth2Error,
    InvalidScopeError,
    OAuth2Error,
)

from accounts.audit.record import record
from accounts.authorization.role_grants import current_grants
from accounts.crypto.secrets import secret_hash
from accounts.errors import InvalidGrant, InvalidRedirectURI
from accounts.http.content_security_policy import override_policy
from accounts.http.help.links import help_url
from accounts.http.language import in_english
from accounts.models import Consent, OAuthClient, Scope, User
from accounts.models.roles import ACT_WITHIN_ROLES
from accounts.oauth.clients import metadata_documents
from accounts.oauth.clients.document_failures import DocumentFailure
from accounts.oauth.redirect_uris import (
    added_parameters,
    host_of,
    is_interceptable,
    is_loopback,
    response_uri,
    validate_redirect_uri,
)
from accounts.oauth.request_parameters import normalized_form, resource_objection
from accounts.parsing.text import one_line
from accounts.tokens.issue import exceeds_one_token, lock_unchanged

CODE_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
"""The form of an S256 challenge (RFC 7636 4.2)."""

STORED_QUERY = "oauth_question"
"""Parameter and session key of authorization requests too long for a URL."""
MAX_STORED_QUERIES = 4
"""Each tab of a browser may have its own; the oldest is dropped."""

WITHOUT_DESCRIPTION: dict[str, Any] = {
    "unauthorized_client": gettext_lazy(
        "The app asked in a way that is not allowed for it. An administrator can "
        "compare its grant types under OAuth clients; authorization_code is needed."
    ),
    "unsupported_response_type": gettext_lazy("response_type must be code."),
    "access_denied": gettext_lazy("You denied the access."),
    "login_required": gettext_lazy("Sign in first, then start again in the app."),
}
"""Error of the libraries that has no description -> the text of the page."""


ADVICE: dict[str, Any] = {
    "Invalid client_id parameter value.": gettext_lazy(
        "The app is not registered here, or an administrator has blocked it. Remove "
        "this server from the app and add it again. If that does not help, ask an "
        "administrator."
    ),
    "Mismatching redirect URI.": gettext_lazy(
        "The app did not register the address to which it wants you to return. Remove "
        "this server from the app and add it again, or ask an administrator to "
        "correct the redirect URIs of the app."
    ),
}
"""Description of the libraries -> what the user can do."""
APP_FAULT = gettext_lazy("This is a fault of the app. Update it, or tell its makers.")


class InteractionRequired(OAuth2Error):
    """prompt=none, but consent is needed (OIDC Core 3.1.2.6)."""

    error = "interaction_required"


class DocumentRefused(Exception):
    """The client has no usable metadata document."""

    def __init__(self, failure: DocumentFailure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


@method_decorator(never_cache, name="dispatch")
class AuthorizeView(LoginRequiredMixin, OAuthLibMixin, View):
    """GET shows the consent page; POST to the same URL takes the decision."""

    # Without HEAD: Django answers it with `get`, which may issue a code.
    http_method_names = ["get", "post", "options"]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Normalize the parameters before the toolkit reads them; require sign-in."""
        raw_query = request.GET
        if STORED_QUERY in raw_query:
            stored = stored_queries(request).get(raw_query[STORED_QUERY])
            if stored is None:
                text = _("This request has expired. Start again in the application.")
                return self.error_page(request, "invalid_request", text)
            raw_query = QueryDict(stored)
        try:
            query = normalized_form(raw_query)
        except ValueError as error:
            advice = str(APP_FAULT)
            return self.error_page(
                request, "invalid_request", str(error), advice=advice
            )
        request.GET = query  # type: ignore[assignment]
        request.META["QUERY_STRING"] = query.urlencode()
        try:
            return super().dispatch(request, *args, **kwargs)
        except OAuthToolkitError as error:
            return self.error_response(request, error)
        except DocumentRefused as error:
            return self.document_page(request, error.failure)

    def handle_no_permission(self) -> Any:
        """Redirect to the sign-in page, which returns here."""
        return self.redirect_to_sign_in(self.request.GET)

    def redirect_to_sign_in(self, query: QueryDict) -> HttpResponse:
        """Redirect to the sign-in page; store a long query in the session."""
        return_url = f"{self.request.path}?{query.urlencode()}"
        if len(return_url) > MAX_URL_LENGTH:
            return_url = f"{self.request.path}?{STORED_QUERY}={self.store(query)}"
        return redirect_to_login(return_url)

    def store(self, query: QueryDict) -> str:
        """Store a query in the session; returns its key."""
        text = query.urlencode()
        key = secret_hash(text)[:16]
        queries = stored_queries(self.request)
        queries.pop(key, None)
        kept = list(queries.items())[1 - MAX_STORED_QUERIES :]
        self.request.session[STORED_QUERY] = dict([*kept, (key, text)])
        return key

    def get(self, request: HttpRequest) -> HttpResponse:
        """The consent page, or a redirect if an earlier consent suffices."""
        client, scopes, credentials = self.validated_request(request)
        prompts = request.GET.get("prompt", "").split()
        if "login" in prompts:
            return self.prompt_login(request)
        consent = consent_of(request, client)
        uri = credentials["redirect_uri"]
        if "consent" not in prompts and already_consented(consent, client, scopes, uri):
            return self.allow(request, client, scopes, credentials)
        if "none" in prompts:
            return self.prompt_none(request, client, credentials, consent is not None)
        return self.consent_page(request, client, scopes, uri)

    def prompt_login(self, request: HttpRequest) -> HttpResponse:
        """prompt=login: sign out and require one new sign-in (OIDC Core 3.1.2.1)."""
        logout(request)
        query = QueryDict(mutable=True)
        query.update(request.GET)
        others = [p for p in query.get("prompt", "").split() if p != "login"]
        query["prompt"] = " ".join(others)
        return self.redirect_to_sign_in(query)

    def prompt_none(
        self,
        request: HttpRequest,
        client: OAuthClient,
        credentials: dict[str, Any],
        has_consent: bool,
    ) -> HttpResponse:
        """prompt=none, but consent is needed: redirect with the error.

        A client without any consent gets an error page: no open redirect.
        """
        text = gettext_noop("The user must give consent.")
        error = InteractionRequired(text, state=credentials.get("state"))
        error.redirect_uri = credentials["redirect_uri"]
        if has_consent:
            uri = response_uri(error.redirect_uri, error.twotuples)
            return self.redirect_to_client(uri, client)
        return self.error_response(request, OAuthToolkitError(error))

    def post(self, request: HttpRequest) -> HttpResponse:
        """Take the decision: the form's `decision` is allow or deny."""
        client, scopes, credentials = self.validated_request(request)
        if request.POST.get("decision") == "allow":
            return self.allow(request, client, scopes, credentials)
        self.record_decision(request, "consent.denied", client, scopes)
        denied = AccessDeniedError(state=credentials.get("state"))
        denied.redirect_uri = credentials["redirect_uri"]
        uri = response_uri(denied.redirect_uri, denied.twotuples)
        return self.redirect_to_client(uri, client)

    def validated_request(
        self, request: HttpRequest
    ) -> tuple[OAuthClient, list[str], dict[str, Any]]:
        """(client, requested scopes that the user's roles grant, other parameters).

        Raises OAuthToolkitError, RateLimited.
        """
        client_id = request.GET.get("client_id", "")
        failure = metadata_documents.refresh(client_id, request)
        if failure is not None:
            raise DocumentRefused(failure)
        names, credentials = self.validate_authorization_request(request)
        uri, state = credentials["redirect_uri"], credentials.get("state")
        with in_english():
            validate_request(request.GET, credentials)
        client = OAuthClient.objects.get(client_id=credentials["client_id"])
        granted = {ACT_WITHIN_ROLES, *current_grants(signed_in_user_id(request))[1]}
        scopes = [name for name in dict.fromkeys(names) if name in granted]
        if not scopes:
            text = gettext_noop(
                "Your roles include none of the requested scopes. Request "
                "a role in the portal."
            )
            raise OAuthToolkitError(
                InvalidScopeError(text, state=state), redirect_uri=uri
            )
        if exceeds_one_token(scopes):
            text = gettext_noop(
                "The requested scopes are too long for one token. Request fewer of "
                "them, or only mcp."
            )
            raise OAuthToolkitError(
                InvalidScopeError(text, state=state), redirect_uri=uri
            )
        return client, scopes, credentials

    @sensitive_variables()
    def allow(
        self,
        request: HttpRequest,
        client: OAuthClient,
        scopes: list[str],
        credentials: dict[str, Any],
    ) -> HttpResponse:
        """Store the consent and redirect with a code, in one transaction.

        Redirects to the sign-in page if access was revoked meanwhile.
        """
        try:
            with transaction.atomic():
                lock_unchanged(cast(User, request.user), client.client_id)
                made, *_rest = self.create_authorization_response(
                    request=request,
                    scopes=" ".join(scopes),
                    credentials={**credentials, "resource": []},
                    allow=True,
                )
                self.store_consent(request, client, scopes, credentials)
        except InvalidGrant:
            return self.redirect_to_sign_in(request.GET)
        uri = credentials["redirect_uri"]
        return self.redirect_to_client(
            response_uri(uri, added_parameters(uri, made)), client
        )

    def store_consent(
        self,
        request: HttpRequest,
        client: OAuthClient,
        scopes: list[str],
        credentials: dict[str, Any],
    ) -> None:
        """Add the scopes to the user's consent; runs in the caller's transaction."""
        before = consent_of(request, client)
        earlier = set(before.scope.split()) if before else set()
        Consent.objects.update_or_create(
            user_id=signed_in_user_id(request),
            client=client,
            defaults={
                "scope": " ".join(sorted(earlier | set(scopes))),
                "redirect_host": host_of(credentials["redirect_uri"]),
            },
        )
        self.record_decision(request, "consent.given", client, scopes)

    def record_decision(
        self, request: HttpRequest, action: str, client: OAuthClient, scopes: list[str]
    ) -> None:
        """Audit the decision with its scopes."""
        record(
            action,
            actor=request.user,
            request=request,
            object=f"client {client}",
            subject=cast(User, request.user),
            client_id=client.client_id,
            via=" ".join(scopes)[:255],
        )

    def redirect_to_client(self, uri: str, client: OAuthClient) -> HttpResponse:
        """Redirect to the client; allows its custom URL schemes."""
        response: HttpResponse = OAuth2ResponseRedirect(
            uri, client.get_allowed_schemes()
        )
        response["Cache-Control"] = "no-store"
        return response

    def consent_page(
        self, request: HttpRequest, client: OAuthClient, scopes: list[str], uri: str
    ) -> HttpResponse:
        """The consent page, with the scopes in groups."""
        words = Scope.objects.descriptions(scopes)
        context = {
            "client": client,
            "host": host_of(uri),
            "local": is_loopback(host_of(uri)),
            "groups": group_scopes([(name, words[name]) for name in scopes]),
            "action": request.get_full_path(),
        }
        response = render(request, "oauth/authorize.html", context)
        return without_scripts(response)

    def error_response(
        self, request: HttpRequest, error: OAuthToolkitError
    ) -> HttpResponse:
        """An error page with a link back to a known client, not a redirect.

        The link's error_description is ASCII (RFC 6749 4.1.2.1); the page's text is
        translated.
        """
        inner = error.oauthlib_error
        uri = ""
        if not isinstance(error, FatalClientError) and inner.redirect_uri:
            uri = response_uri(inner.redirect_uri, inner.twotuples)
        description = str(inner.description or "")
        text = self.describe_error(request, inner)
        fault = APP_FAULT if inner.error == "invalid_request" else ""
        advice = str(ADVICE.get(description, fault))
        return self.error_page(request, str(inner.error), text, uri, advice=advice)

    def describe_error(self, request: HttpRequest, error: Any) -> str:
        """The text of the page; the libraries raise some errors without description.

        That of a wrong resource contains its URL, so no catalogue has it.
        """
        if error.error == "invalid_target":
            return resource_objection(request.GET)
        if error.description:
            return _(str(error.description))
        if not isinstance(error, InvalidScopeError):
            return str(WITHOUT_DESCRIPTION.get(error.error, error.error))
        requested = request.GET.get("scope", "").split()
        rows = Scope.objects.filter(name__in=requested)
        known = set(rows.values_list("name", flat=True))
        unknown = one_line(", ".join(sorted(set(requested) - known)))
        return _("Unknown scope: %s.") % unknown

    def document_page(
        self, request: HttpRequest, failure: DocumentFailure
    ) -> HttpResponse:
        """The error page of a client whose document cannot be used."""
        name = one_line(request.GET.get("client_id", ""))
        lead = _("Portico cannot identify the client %s.") % name
        more = {"lead": lead, "advice": failure.advice()}
        return self.error_page(request, "invalid_client", failure.text(), **more)

    def error_page(
        self, request: HttpRequest, error: str, text: str, back: str = "", **more: str
    ) -> HttpResponse:
        """The error page, status 400; `back` is a link to the client or empty."""
        known = [help_url(words) for words in (more.get("lead", ""), text)]
        link = next((url for url in known if url), "")
        context = {"error": error, "text": text, "back": back, "help": link, **more}
        return without_scripts(render(request, "oauth/error.html", context, status=400))


def already_consented(
    consent: Consent | None, client: OAuthClient, scopes: list[str], uri: str
) -> bool:
    """Whether an earlier consent covers the scopes and the redirect host.

    Another program may use the name of a client that no administrator verified. Such a
    client needs consent each time if any program could receive the code (RFC 8252 8.6).
    """
    if consent is None or not consent.covers(scopes):
        return False
    trusted = client.verified or not is_interceptable(uri)
    return trusted and consent.redirect_host == host_of(uri)


def validate_request(query: QueryDict, credentials: dict[str, Any]) -> None:
    """Check what the toolkit does not. Raises OAuthToolkitError."""
    uri, state = credentials["redirect_uri"], credentials.get("state")
    try:
        validate_redirect_uri(uri)
    except InvalidRedirectURI as error:
        invalid = CustomOAuth2Error("invalid_request", str(error))
        raise OAuthToolkitError(invalid) from error
    code, text = request_objection(query, credentials)
    if text:
        invalid = CustomOAuth2Error(code, text, state=state)
        raise OAuthToolkitError(invalid, redirect_uri=uri)


def request_objection(query: QueryDict, credentials: dict[str, Any]) -> tuple[str, str]:
    """(error code, description); the description is empty for a valid request."""
    if query.get("response_mode", "query") != "query":
        return "invalid_request", _("response_mode must be query.")
    if credentials.get("code_challenge_method") != "S256":
        return "invalid_request", _("code_challenge_method must be S256.")
    if not CODE_CHALLENGE.fullmatch(credentials["code_challenge"]):
        text = _("code_challenge must be the 43 characters that S256 produces.")
        return "invalid_request", text
    return "invalid_target", resource_objection(query)


def group_scopes(
    scopes: list[tuple[str, str]],
) -> list[tuple[str, list[tuple[str, str]]]]:
    """[(heading, [(scope, description)])]: mcp, then scopes by their last part."""
    headings = {
        "mcp": _("Use your tools, except sensitive ones"),
        "Read": _("Read data, including sensitive data"),
        "Write": _("Change data, including sensitive data"),
        "": _("Use single tools, including sensitive ones"),
    }
    groups: dict[str, list[tuple[str, str]]] = {kind: [] for kind in headings}
    for name, words in scopes:
        last = name.rpartition(".")[2]
        groups[last if last in headings else ""].append((name, words))
    return [(headings[kind], items) for kind, items in groups.items() if items]


def stored_queries(request: HttpRequest) -> dict[str, str]:
    """Key -> query string of the stored requests, the oldest first."""
    stored = request.session.get(STORED_QUERY)
    return dict(stored) if isinstance(stored, dict) else {}


def consent_of(request: HttpRequest, client: OAuthClient) -> Consent | None:
    """The signed-in user's consent for this client."""
    rows = Consent.objects.filter(user_id=signed_in_user_id(request), client=client)
    consent: Consent | None = rows.first()
    return consent


def signed_in_user_id(request: HttpRequest) -> int:
    """Primary key of the signed-in user; 0 for an anonymous one."""
    return int(request.user.pk or 0)


def without_scripts(response: HttpResponse) -> HttpResponse:
    """Set a CSP that allows no scripts at all."""
    return override_policy(
        response, {"script-src": ["'none'"], "connect-src": ["'none'"]}
    )
