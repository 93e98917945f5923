"""NotificationChannel: where notifications go, and which."""

from __future__ import annotations

import base64
import json
import os
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from django.db import models
from django.utils.translation import gettext_lazy as _

from accounts.crypto.encrypted_columns import NOTIFICATION_CHANNELS
from accounts.crypto.encryption import KeyUnreadable, seal, unseal

PURPOSE = NOTIFICATION_CHANNELS.purpose

SECRET_PREFIX = "whsec_"  # noqa: S105
SECRET_BYTES = 32
"""Standard Webhooks asks for 24 to 64 random bytes."""


class ChannelKind(models.TextChoices):
    MAIL = "mail", _("mail")
    SLACK = "slack", _("Slack webhook")
    WEBHOOK = "webhook", _("signed webhook")


def new_key() -> str:
    return uuid4().hex


class NotificationChannelQuerySet(models.QuerySet["NotificationChannel"]):
    def interested_in(self, kind: str) -> list[NotificationChannel]:
        """The enabled channels that want this kind; there are few channels."""
        return [row for row in self.filter(enabled=True) if kind in row.events]


class NotificationChannel(models.Model):
    """A mail, a Slack-compatible webhook or a signed webhook.

    The path of a webhook's URL is often its only secret, so the URL is encrypted, too.
    """

    name = models.CharField(_("name"), max_length=80, unique=True)
    kind = models.CharField(_("kind"), max_length=8, choices=ChannelKind)
    mail_to = models.TextField(
        _("mail addresses"),
        blank=True,
        help_text=_("Addresses of mails, separated by commas or line breaks."),
    )
    host = models.CharField(_("host"), max_length=255, blank=True, editable=False)
    secrets_encrypted = models.TextField(blank=True, editable=False)
    """A JSON object: the URL, and the secret of signatures."""
    row_key = models.CharField(max_length=32, default=new_key, editable=False)
    """Associated data of the encrypted column."""
    events = models.JSONField(_("events"), default=list)
    enabled = models.BooleanField(_("enabled"), default=True)

    objects = NotificationChannelQuerySet.as_manager()

    class Meta:
        ordering = ("name",)
        verbose_name = _("notification channel")
        verbose_name_plural = _("notification channels")

    def __str__(self) -> str:
        return self.name

    @property
    def addresses(self) -> list[str]:
        return split_addresses(self.mail_to)

    @property
    def url(self) -> str:
        """The decrypted URL; empty for mail. Raises KeyUnreadable."""
        return self._secrets().get("url", "")

    @property
    def secret(self) -> str:
        """The decrypted secret of signatures. Raises KeyUnreadable."""
        return self._secrets().get("secret", "")

    def last_delivery(self) -> Any:
        """The delivery that was attempted last; None before the first attempt."""
        tried = self.deliveries.exclude(attempted_at=None)
        return tried.order_by("-attempted_at").first()

    def set_url(self, url: str) -> None:
        """Encrypt the URL; only its host stays readable."""
        self._keep(url=url)
        self.host = (urlsplit(url).hostname or "")[:255]

    def renew_secret(self) -> str:
        """Replace the secret of signatures; returns it, without saving the row."""
        random = base64.b64encode(os.urandom(SECRET_BYTES)).decode()
        self._keep(secret=f"{SECRET_PREFIX}{random}")
        return f"{SECRET_PREFIX}{random}"

    def _secrets(self) -> dict[str, str]:
        if not self.secrets_encrypted:
            return {}
        sealed = base64.b64decode(self.secrets_encrypted)
        found: dict[str, str] = json.loads(
            unseal(PURPOSE, sealed, self.row_key.encode())
        )
        return found

    def _keep(self, **new: str) -> None:
        """Encrypt these with the others; those that no key reads are lost."""
        try:
            kept = self._secrets()
        except KeyUnreadable:
            kept = {}
        text = json.dumps({**kept, **new}).encode()
        sealed = seal(PURPOSE, text, self.row_key.encode())
        self.secrets_encrypted = base64.b64encode(sealed).decode()


def split_addresses(text: Any) -> list[str]:
    """Mail addresses of a text, once each, in their order."""
    return list(dict.fromkeys(str(text).replace(",", " ").split()))
