"""The sign-in pages people meet on their way to allow a client: allauth's, secured."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

from allauth.account.views import LoginView
from allauth.mfa.base.views import AuthenticateView
from django.http import HttpRequest, HttpResponse

from accounts.csp import override
from accounts.external import origins
from accounts.oauth.redirects import origin_of

SOURCE = re.compile(
    r"https?://[\w.:\[\]-]+|(?!javascript|data|blob)[a-z][\w.+-]*:", re.A
)


def on_the_way(response: Any, target: str, *further: str) -> HttpResponse:
    """Chromium applies form-action to every redirect after the form.

    Whoever allowed a client before goes from this form through the authorization
    endpoint to that client, which therefore has to be among the form's targets.
    """
    asked = parse_qs(urlsplit(target).query).get("redirect_uri", [""])
    try:
        source = origin_of(asked[0])
    except ValueError:
        source = ""
    known = urlsplit(target).path == "/oauth/authorize" and SOURCE.fullmatch(source)
    targets = ["'self'", *further, *([source] if known else [])]
    rendered = response.render() if hasattr(response, "render") else response
    return override(rendered, {"form-action": targets})


class SignInView(LoginView):
    """allauth's own view with our template: password or passkey."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """As allauth's, secured."""
        response = super().dispatch(request, *args, **kwargs)
        asked = request.POST.get("next") or request.GET.get("next", "")
        return on_the_way(response, str(asked), *origins())


class SecondStepView(AuthenticateView):
    """allauth's second step: a code or a passkey."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """As allauth's, secured."""
        response = super().dispatch(request, *args, **kwargs)
        stage = getattr(request, "_login_stage", None)
        return on_the_way(response, (stage and stage.login.redirect_url) or "")
