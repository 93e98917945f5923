"""The authorization endpoint: sign in, decide, and only then be redirected.

OAuth 2.1 4.1.1, 7.11, 7.12; RFC 8707; RFC 9207. Plain HTML forms, no JavaScript.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from django.conf import settings
from django.contrib.auth import logout
from django.contrib.auth.mixins import LoginRequiredMixin
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
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

from accounts.audit import one_line, record
from accounts.csp import override
from accounts.models import Consent, OAuthClient, Scope
from accounts.models.roles import ACT_WITHIN_ROLES
from accounts.principal import roles_of

TOLERATED = {"offline_access"}
"""Asked for by habit; refresh tokens come without it."""


def tidied(query: QueryDict) -> QueryDict:
    """Empty parameters are left out (OAuth 2.1 3.1), tolerated scopes too.

    Raises ValueError naming a parameter that comes twice or cannot be text.
    """
    clean = QueryDict(mutable=True)
    for name, values in query.lists():
        kept = [value for value in values if value]
        if any("\x00" in value for value in kept):
            raise ValueError(f"The parameter {name[:40]} has a NUL character in it.")
        if len(kept) > 1 and name != "resource":
            raise ValueError(f"The parameter {name} comes more than once.")
        clean.setlist(name, kept) if kept else None
    asked = [s for s in clean.get("scope", "").split() if s not in TOLERATED]
    clean.pop("scope", None)
    if asked:
        clean["scope"] = " ".join(asked)
    return clean


def with_issuer(uri: str) -> str:
    """The redirect with `iss`, once (RFC 9207 2)."""
    parts = urlsplit(uri)
    query = [(k, v) for k, v in parse_qsl(parts.query, True) if k != "iss"]
    query.append(("iss", settings.ISSUER_URL))
    return urlunsplit(parts._replace(query=urlencode(query)))


class InteractionRequired(OAuth2Error):
    """OIDC Core 3.1.2.6."""

    error = "interaction_required"


@method_decorator(never_cache, name="dispatch")
class AuthorizeView(LoginRequiredMixin, OAuthLibMixin, View):
    """GET shows what is asked; POST carries the decision back to the same URL."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Tidy the question before anybody reads it; sign in before all else."""
        try:
            query = tidied(request.GET)
        except ValueError as error:
            return self.refuse(request, "invalid_request", str(error))
        request.GET = query  # type: ignore[assignment]
        request.META["QUERY_STRING"] = query.urlencode()
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: HttpRequest) -> HttpResponse:
        """The question, unless this person has answered it before."""
        try:
            client, scopes, credentials = self.asked(request)
        except OAuthToolkitError as error:
            return self.problem(request, error)
        prompts = request.GET.get("prompt", "").split()
        if "login" in prompts:
            return self.sign_in_again(request)
        given = Consent.objects.filter(user_id=me(request), client=client).first()
        if given is not None and given.covers(scopes) and "consent" not in prompts:
            if given.redirect_host == host_of(credentials["redirect_uri"]):
                return self.allow(request, client, scopes, credentials)
        if "none" in prompts:
            return self.without_asking(request, client, credentials, given is not None)
        return self.question(request, client, scopes, credentials["redirect_uri"])

    def sign_in_again(self, request: HttpRequest) -> HttpResponse:
        """prompt=login: forget who this is, and ask once (OIDC Core 3.1.2.1)."""
        logout(request)
        query = QueryDict(mutable=True)
        query.update(request.GET)
        kept = [p for p in query.get("prompt", "").split() if p != "login"]
        query["prompt"] = " ".join(kept)
        return redirect_to_login(f"{request.path}?{query.urlencode()}")

    def without_asking(
        self,
        request: HttpRequest,
        client: OAuthClient,
        credentials: dict[str, Any],
        known: bool,
    ) -> HttpResponse:
        """prompt=none where a question is due: back to a client allowed before."""
        text = "The person has to be asked."
        error = InteractionRequired(text, state=credentials.get("state"))
        error.redirect_uri = credentials["redirect_uri"]
        if known:
            return self.leave(error.in_uri(error.redirect_uri), client)
        return self.problem(request, OAuthToolkitError(error))

    def post(self, request: HttpRequest) -> HttpResponse:
        """The answer: a button with `decision` allow or deny."""
        try:
            client, scopes, credentials = self.asked(request)
            if request.POST.get("decision") != "allow":
                self.note(request, "consent.denied", client, scopes)
                denied = AccessDeniedError(state=credentials.get("state"))
                denied.redirect_uri = credentials["redirect_uri"]
                return self.leave(denied.in_uri(denied.redirect_uri), client)
            return self.allow(request, client, scopes, credentials)
        except OAuthToolkitError as error:
            return self.problem(request, error)

    def asked(
        self, request: HttpRequest
    ) -> tuple[OAuthClient, list[str], dict[str, Any]]:
        """Client, scopes this person can give, the rest. Raises OAuthToolkitError."""
        names, credentials = self.validate_authorization_request(request)
        client = OAuthClient.objects.get(client_id=credentials["client_id"])
        here, state = credentials["redirect_uri"], credentials.get("state")
        ours = settings.RESOURCE_URL.rstrip("/").lower()
        for resource in request.GET.getlist("resource"):
            if resource.rstrip("/").lower() != ours:
                text = f"This server issues tokens for {settings.RESOURCE_URL} only."
                wrong = CustomOAuth2Error("invalid_target", text, state=state)
                raise OAuthToolkitError(wrong, redirect_uri=here)
        held = {ACT_WITHIN_ROLES, *roles_of(request.user.pk)[1]}  # type: ignore[arg-type]
        scopes = [name for name in dict.fromkeys(names) if name in held]
        if not scopes:
            text = "Your roles give none of the scopes that were asked for."
            raise OAuthToolkitError(
                InvalidScopeError(text, state=state), redirect_uri=here
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
        """Remember the answer and send the code."""
        uri, *_rest = self.create_authorization_response(
            request=request,
            scopes=" ".join(scopes),
            credentials={**credentials, "resource": []},
            allow=True,
        )
        before = Consent.objects.filter(user_id=me(request), client=client).first()
        known = set(before.scope.split()) if before else set()
        Consent.objects.update_or_create(
            user_id=me(request),
            client=client,
            defaults={
                "scope": " ".join(sorted(known | set(scopes))),
                "redirect_host": host_of(credentials["redirect_uri"]),
            },
        )
        self.note(request, "consent.given", client, scopes)
        return self.leave(uri, client)

    def note(
        self, request: HttpRequest, action: str, client: OAuthClient, scopes: list[str]
    ) -> None:
        """On record, whichever way."""
        record(
            action,
            actor=request.user,
            request=request,
            object=f"client {client}",
            client_id=client.client_id,
            via=" ".join(scopes)[:255],
        )

    def leave(self, uri: str, client: OAuthClient) -> HttpResponse:
        """Redirect to the client, custom schemes included (trap T11)."""
        response: HttpResponse = OAuth2ResponseRedirect(
            with_issuer(uri), client.get_allowed_schemes()
        )
        response["Cache-Control"] = "no-store"
        return response

    def question(
        self, request: HttpRequest, client: OAuthClient, scopes: list[str], uri: str
    ) -> HttpResponse:
        """The consent page."""
        words = dict(Scope.objects.values_list("name", "description"))
        context = {
            "client": client,
            "host": host_of(uri),
            "local": is_loopback(uri),
            "groups": grouped([(name, words.get(name) or name) for name in scopes]),
            "action": request.get_full_path(),
        }
        response = render(request, "oauth/authorize.html", context)
        return secured(response, origin_of(uri))

    def problem(self, request: HttpRequest, error: OAuthToolkitError) -> HttpResponse:
        """An error page; a client that is known gets a link back, never a redirect."""
        inner = error.oauthlib_error
        uri = ""
        if not isinstance(error, FatalClientError) and inner.redirect_uri:
            uri = with_issuer(inner.in_uri(inner.redirect_uri))
        text = str(inner.description or self.explained(request, inner))
        return self.refuse(request, str(inner.error), text, uri)

    def explained(self, request: HttpRequest, error: Any) -> str:
        """What the libraries refuse without a word."""
        if not isinstance(error, InvalidScopeError):
            return str(error.error)
        asked = request.GET.get("scope", "").split()
        known = Scope.objects.filter(name__in=asked).values_list("name", flat=True)
        unknown = one_line(", ".join(sorted(set(asked) - set(known))))
        return _("There is no such scope here: %s.") % unknown

    def refuse(
        self, request: HttpRequest, error: str, text: str, back: str = ""
    ) -> HttpResponse:
        """What is wrong, in words."""
        context = {"error": error, "text": text, "back": back}
        return secured(render(request, "oauth/error.html", context, status=400))


def grouped(scopes: list[tuple[str, str]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """(heading, [(scope, words)]): within roles, to look, to change, one by one."""
    headings = {
        "mcp": _("Within your roles, except what is sensitive"),
        "Read": _("Look, sensitive things included"),
        "Write": _("Change, sensitive things included"),
        "": _("Use one by one, even if sensitive"),
    }
    found: dict[str, list[tuple[str, str]]] = {heading: [] for heading in headings}
    for name, words in scopes:
        last = name.rpartition(".")[2]
        found[last if last in headings else ""].append((name, words))
    return [(headings[kind], items) for kind, items in found.items() if items]


def me(request: HttpRequest) -> int:
    """Primary key of who is signed in."""
    return int(request.user.pk or 0)


def host_of(uri: str) -> str:
    """Where a redirect goes: a host, or the scheme of a private one."""
    parts = urlsplit(uri)
    return (parts.hostname or f"{parts.scheme}:")[:255]


def origin_of(uri: str) -> str:
    """The redirect as a CSP source."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        return f"{parts.scheme}://{parts.netloc}"
    return f"{parts.scheme}:"


def is_loopback(uri: str) -> bool:
    """Whether it stays on the person's own machine."""
    return urlsplit(uri).hostname in ("127.0.0.1", "localhost", "::1")


def secured(response: HttpResponse, form_target: str = "") -> HttpResponse:
    """No scripts; Chromium applies form-action to the redirect after the form too."""
    targets = ["'self'", *form_target.split()]
    policy = {"script-src": ["'none'"], "connect-src": ["'none'"]}
    return override(response, {**policy, "form-action": targets})
