"""Page: what portal views share: sign-in first, nothing cached."""

from __future__ import annotations

from django.contrib.auth.mixins import LoginRequiredMixin
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache

from accounts.models import User


@method_decorator(never_cache, name="dispatch")
class Page(LoginRequiredMixin, View):
    """A page of the portal."""

    @property
    def me(self) -> User:
        """Who is signed in."""
        assert isinstance(self.request.user, User)  # noqa: S101
        return self.request.user
