"""Open sessions of clients of the 2025 protocols, and messages about them.

Every worker reads these rows, so any worker serves any session.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _


class ClientSessionQuerySet(models.QuerySet["ClientSession"]):
    """Sessions; whoever ends one deletes its row."""

    def live(self, now: datetime) -> ClientSessionQuerySet:
        """Sessions that have not expired."""
        return self.filter(expires_at__gt=now)

    def extend(self, keys: Iterable[str], until: datetime) -> None:
        """Let these sessions live until then; ended ones stay ended."""
        self.filter(pk__in=list(keys)).update(expires_at=until)

    def end(self, keys: Iterable[str]) -> None:
        """End these sessions: every worker answers 404 to their next message."""
        self.filter(pk__in=list(keys)).delete()


class ClientSession(models.Model):
    """A session that is open. Its id carries all else that a message needs."""

    key = models.CharField(
        primary_key=True,
        max_length=32,
        help_text=_("Random; the id that the client sends contains it, sealed."),
    )
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    expires_at = models.DateTimeField(
        db_index=True, help_text=_("When the session ends if it is not used.")
    )

    objects = ClientSessionQuerySet.as_manager()

    class Meta:
        verbose_name = _("MCP session")
        verbose_name_plural = _("MCP sessions")

    def __str__(self) -> str:
        return self.key


class SessionMessage(models.Model):
    """A message of a session that another worker needs, for a short time."""

    channel = models.CharField(
        max_length=80, help_text=_("The session and what the message is for.")
    )
    number = models.IntegerField(help_text=_("Place in the channel."))
    content_encrypted = models.BinaryField()
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name = _("message of a session")
        verbose_name_plural = _("messages of sessions")
        indexes = [models.Index(fields=["channel", "number"], name="session_message")]

    def __str__(self) -> str:
        return f"{self.channel} {self.number}"
