"""The base class of portal views: it requires sign-in and forbids caching."""

from __future__ import annotations

from django.contrib.auth.mixins import LoginRequiredMixin
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache

from accounts.models import User


@method_decorator(never_cache, name="dispatch")
class Page(LoginRequiredMixin, View):
    @property
    def me(self) -> User:
        """The signed-in user, typed."""
        assert isinstance(self.request.user, User)  # noqa: S101
        return self.request.user
