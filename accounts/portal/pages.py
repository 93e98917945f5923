"""Page: what portal views share: sign-in first, strict CSP, nothing cached."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import HttpRequest
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache

from accounts.models import User

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


@method_decorator(never_cache, name="dispatch")
class Page(LoginRequiredMixin, View):
    """A page of the portal."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """With the headers."""
        response: Any = super().dispatch(request, *args, **kwargs)
        response["Content-Security-Policy"] = POLICY
        response["Referrer-Policy"] = "same-origin"
        return response

    @property
    def me(self) -> User:
        """Who is signed in."""
        assert isinstance(self.request.user, User)  # noqa: S101
        return self.request.user
