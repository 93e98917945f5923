"""The sign-in pages people meet on their way to allow a client: allauth's, secured."""

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
from django.http import HttpRequest, HttpResponse

from accounts.authentication.adapters import access_revoked_since, restart_sign_in
from accounts.authentication.oidc.adapter import provider_origins
from accounts.http.csp import csp_origin, override_policy
from accounts.http.issuer_urls import is_other_host

CSP_SOURCE = re.compile(
    r"https?://[\w.:\[\]-]+|(?!javascript|data|blob)[a-z][\w.+-]*:", re.A
)


def allow_redirect_in_csp(response: Any, target: str, *further: str) -> HttpResponse:
    """Chromium applies form-action to every redirect after the form.

    Whoever allowed a client before goes from this form through the authorization
    endpoint to that client, which therefore has to be among the form's targets.
    """
    source = redirect_origin(target)
    targets = ["'self'", *further, *([source] if CSP_SOURCE.fullmatch(source) else [])]
    rendered = response.render() if hasattr(response, "render") else response
    return override_policy(rendered, {"form-action": targets})


def redirect_origin(target: str) -> str:
    """Where the authorization endpoint would lead from here; empty where it is not the
    target, or the target is no URL.
    """
    try:
        parts = urlsplit(target)
        if parts.path != "/oauth/authorize":
            return ""
        return csp_origin(parse_qs(parts.query).get("redirect_uri", [""])[0])
    except ValueError:
        return ""


class SignInView(LoginView):
    """allauth's own view with our template: password or passkey."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """As allauth's, secured."""
        response = super().dispatch(request, *args, **kwargs)
        asked = request.POST.get("next") or request.GET.get("next", "")
        home = [settings.ISSUER_URL] if is_other_host(request) else []
        return allow_redirect_in_csp(response, str(asked), *home, *provider_origins())


class OldPasswordForm(ChangePasswordForm):
    """allauth's form; the old password is judged under the lock-out, as any other."""

    def clean_oldpassword(self) -> str:
        """allauth's own would compare without counting."""
        old = str(self.cleaned_data["oldpassword"])
        if not get_adapter().reauthenticate(self.user, old):
            raise get_adapter().validation_error("enter_current_password")
        return old


class SecondStepView(AuthenticateView):
    """allauth's second step: a code or a passkey."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """As allauth's, secured.

        allauth fails where the account is gone meanwhile, and sends people in a circle
        where its second factors are.
        """
        under_way = unstash_login(request, peek=True)
        if under_way and access_revoked_since(request, under_way.user):
            return restart_sign_in(request)
        response = super().dispatch(request, *args, **kwargs)
        stage = getattr(request, "_login_stage", None)
        return allow_redirect_in_csp(
            response, (stage and stage.login.redirect_url) or ""
        )
