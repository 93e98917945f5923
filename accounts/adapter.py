"""allauth's adapter: accounts are made by an administrator, not by visitors."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest

from accounts.audit import client_address


class ClosedSignUp(DefaultAccountAdapter):
    """Sign-up is closed; all else is allauth's own."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Never."""
        return False

    def get_client_ip(self, request: HttpRequest) -> str:
        """As everywhere (accounts/proxies.py)."""
        return client_address(request)

    def authentication_failed(self, request: HttpRequest, **credentials: Any) -> None:
        """On record already: Django's own signal told (accounts/signins.py)."""
