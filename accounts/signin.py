"""The sign-in page people meet on their way to allow a client: allauth's, secured."""

from __future__ import annotations

from typing import Any

from allauth.account.views import LoginView
from django.http import HttpRequest

from accounts.oauth.authorize import secured


class SignInView(LoginView):
    """allauth's own view with a strict policy and our template."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """As allauth's, secured."""
        response: Any = super().dispatch(request, *args, **kwargs)
        return secured(response.render() if hasattr(response, "render") else response)
