"""Enabling and disabling a row at /api/v1/."""

from __future__ import annotations

from typing import Any

from rest_framework.decorators import action
from rest_framework.response import Response

from accounts.admin_api.views import ListView, documented


class SwitchMixin(ListView):
    """The admin's actions `enable` and `disable`."""

    @documented(request=None)
    @action(methods=["post"], detail=True)
    def enable(self, request: Any, pk: int) -> Response:
        """Enable it. Tools that are gone stay disabled."""
        return self.act("enable")

    @documented(request=None)
    @action(methods=["post"], detail=True)
    def disable(self, request: Any, pk: int) -> Response:
        """Hide it, and all that it offers, from everyone."""
        return self.act("disable")
