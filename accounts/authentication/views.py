"""allauth's sign-in pages with a CSP that lets the form lead back to a client."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

from allauth.account.adapter import get_adapter
from allauth.account.forms import ChangePasswordForm
from allauth.account.internal.stagekit import unstash_login
from allauth.account.views import LoginView
from allauth.mfa.base.views import AuthenticateView
from django.conf import settings
from django.contrib.auth.views import LogoutView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from accounts.authentication.adapters import access_revoked_since, restart_sign_in
from accounts.authentication.oidc.adapter import provider_origins
from accounts.http.content_security_policy import csp_origin, override_policy
from accounts.http.issuer_urls import is_other_host

CSP_SOURCE = re.compile(
    r"https?://[\w.:\[\]-]+|(?!javascript|data|blob)[a-z][\w.+-]*:", re.A
)


def allow_redirect_in_csp(response: Any, target: str, *further: str) -> HttpResponse:
    """Add the client behind `target` to the form-action directive.

    Chromium applies form-action to every redirect after the form. After sign-in the
    authorization endpoint may redirect at once to a client with consent.
    """
    source = redirect_origin(target)
    targets = ["'self'", *further, *([source] if CSP_SOURCE.fullmatch(source) else [])]
    rendered = response.render() if hasattr(response, "render") else response
    return override_policy(rendered, {"form-action": targets})


def redirect_origin(target: str) -> str:
    """The redirect URI's origin; empty unless `target` is /oauth/authorize."""
    try:
        parts = urlsplit(target)
        if parts.path != "/oauth/authorize":
            return ""
        return csp_origin(parse_qs(parts.query).get("redirect_uri", [""])[0])
    except ValueError:
        return ""


class SignInView(LoginView):
    """allauth's sign-in page for a password or a passkey."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Add redirect targets, the issuer and sign-in providers to the CSP."""
        response = super().dispatch(request, *args, **kwargs)
        target = request.POST.get("next") or request.GET.get("next", "")
        issuer = [settings.ISSUER_URL] if is_other_host(request) else []
        origins = [*issuer, *provider_origins()]
        return allow_redirect_in_csp(response, str(target), *origins)


class OldPasswordForm(ChangePasswordForm):
    """allauth's form, which checks the old password under the lock-out."""

    def clean_oldpassword(self) -> str:
        """Count the attempt, which allauth does not. Raises ValidationError."""
        old = str(self.cleaned_data["oldpassword"])
        if not get_adapter().reauthenticate(self.user, old):
            raise get_adapter().validation_error("enter_current_password")
        return old


class SecondStepView(AuthenticateView):
    """allauth's second step: a code or a passkey."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Restart the sign-in if the account's access was revoked.

        allauth raises an exception if the account was deleted meanwhile. It redirects
        in a loop if the account's second factors were.
        """
        unfinished = unstash_login(request, peek=True)
        if unfinished and access_revoked_since(request, unfinished.user):
            return restart_sign_in(request)
        response = super().dispatch(request, *args, **kwargs)
        stage = getattr(request, "_login_stage", None)
        return allow_redirect_in_csp(
            response, (stage and stage.login.redirect_url) or ""
        )


class SignOutView(LogoutView):
    """POST signs out. GET, as from a bookmark, shows the button."""

    http_method_names = ["get", "post", "options"]

    def get(self, request: HttpRequest) -> HttpResponse:
        if not request.user.is_authenticated:
            return redirect("account_login")
        return render(request, "account/sign_out.html")
