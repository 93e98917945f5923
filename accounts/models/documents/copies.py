"""Copies of client metadata documents, for servers that cannot fetch them."""

from __future__ import annotations

from typing import Any

from django.db import models, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.models.oauth import OAuthClient, OAuthClientQuerySet


class DocumentCopyQuerySet(models.QuerySet["DocumentCopy"]):
    def switch_off(self, *, actor: Any, reason: str) -> int:
        """Switch off and end the access of the clients; return the number of tokens."""
        with transaction.atomic():
            keys = list(self.values_list("pk", flat=True))
            clients = OAuthClient.objects.filter(document_copy__in=keys)
            self.update(enabled=False)
            return int(clients.end_access(actor=actor, reason=reason))

    switch_off.queryset_only = True  # type: ignore[attr-defined]
    switch_off.alters_data = True  # type: ignore[attr-defined]

    def in_use(self) -> DocumentCopyQuerySet:
        """Copies that a client stands on."""
        clients = OAuthClient.objects.exclude(document_copy=None)
        return self.filter(pk__in=clients.values("document_copy"))

    def mark_used(self) -> None:
        self.update(last_used_at=timezone.now())

    mark_used.queryset_only = True  # type: ignore[attr-defined]
    mark_used.alters_data = True  # type: ignore[attr-defined]


class DocumentCopy(models.Model):
    """A client's document, used only while its host cannot serve it.

    `document` is the JSON object that the host publishes; `client_id` is its URL.
    """

    class Source(models.TextChoices):
        """How the copy came here."""

        SHIPPED = "shipped", _("shipped with Portico")
        PASTED = "pasted", _("pasted by an administrator")
        FETCHED = "fetched", _("fetched by this server")

    client_id = models.CharField(_("URL"), max_length=255, unique=True)
    name = models.CharField(_("name"), max_length=255)
    document = models.JSONField(
        _("document"),
        help_text=_("The JSON text at the URL, unchanged. It names its own URL."),
    )
    source = models.CharField(
        _("source"), max_length=8, choices=Source, default=Source.PASTED
    )
    origin = models.CharField(
        _("where it was read"),
        max_length=255,
        blank=True,
        help_text=_("Where the document was read, for later readers."),
    )
    read_on = models.DateField(_("read on"), default=timezone.localdate)
    enabled = models.BooleanField(
        _("switched on"),
        default=True,
        help_text=_(
            "If off, the copy is not used, and clients that signed in with it are "
            "signed out."
        ),
    )
    last_used_at = models.DateTimeField(
        _("last used at"), null=True, blank=True, editable=False
    )

    objects = DocumentCopyQuerySet.as_manager()

    class Meta:
        ordering = ("name", "client_id")
        verbose_name = _("client document copy")
        verbose_name_plural = _("client document copies")

    def __str__(self) -> str:
        return str(self.name)

    def clients(self) -> OAuthClientQuerySet:
        """The client that signs in with this copy, if any."""
        rows: OAuthClientQuerySet = OAuthClient.objects.exclude(document_copy=None)
        return rows.filter(document_copy__pk=self.pk)
