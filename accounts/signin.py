"""The sign-in page people meet on their way to allow a client."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.views import LoginView
from django.http import HttpRequest

from accounts.oauth.authorize import secured


class SignInView(LoginView):
    """Django's own, with our page and a strict policy."""

    redirect_authenticated_user = True

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """As Django's, secured."""
        response = super().dispatch(request, *args, **kwargs)
        if hasattr(response, "render"):
            return secured(response.render())
        return secured(response)  # type: ignore[arg-type]
