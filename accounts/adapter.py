"""allauth's adapter: accounts are made by an administrator, not by visitors."""

from __future__ import annotations

import logging
from smtplib import SMTPException
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest

from accounts.audit import client_address, record

logger = logging.getLogger(__name__)


NOWHERE = "0.0.0.0"  # noqa: S104 - not bound to: a peer without address


class ClosedSignUp(DefaultAccountAdapter):
    """Sign-up is closed; all else is allauth's own."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Never."""
        return False

    def get_client_ip(self, request: HttpRequest) -> str:
        """As everywhere (accounts/proxies.py)."""
        return client_address(request) or NOWHERE

    def authentication_failed(self, request: HttpRequest, **credentials: Any) -> None:
        """On record already: Django's own signal told (accounts/signins.py)."""

    def send_mail(self, template_prefix: str, email: str, context: Any) -> None:
        """On record; a mail server that is away must break no page."""
        about = template_prefix.rpartition("/")[2]
        try:
            super().send_mail(template_prefix, email, context)
        except (OSError, SMTPException) as error:
            logger.error("A mail (%s) could not be sent: %s", about, error)
            about = f"{about}: not sent"
        record("mail.sent", object=about, actor=context.get("user"))
