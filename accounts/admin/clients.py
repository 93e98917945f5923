"""OAuth clients and what people allowed them."""

from __future__ import annotations

import secrets
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from accounts.admin.base import Audited, ReadOnly
from accounts.models import (
    Consent,
    DocumentHost,
    OAuthAccessToken,
    OAuthClient,
    OAuthGrant,
    OAuthIDToken,
    OAuthRefreshToken,
)

for toolkits_own in (
    OAuthAccessToken,
    OAuthClient,
    OAuthGrant,
    OAuthIDToken,
    OAuthRefreshToken,
):
    if admin.site.is_registered(toolkits_own):
        admin.site.unregister(toolkits_own)


@admin.register(OAuthClient)
class OAuthClientAdmin(Audited[OAuthClient]):
    """Names come from outside and are shown as text."""

    noun = "client"
    list_display = (
        "name",
        "short_id",
        "registration_source",
        "blocked",
        "created",
        "last_used_at",
    )
    list_filter = ("registration_source", "blocked", "client_type")
    search_fields = ("name", "client_id", "redirect_uris")
    fields = (
        "name",
        "client_id",
        "registration_source",
        "redirect_uris",
        "client_type",
        "token_endpoint_auth_method",
        "grant_types",
        "service_account",
        "blocked",
        "created",
        "last_used_at",
    )
    readonly_fields = ("client_id", "registration_source", "created", "last_used_at")
    actions = ("block", "unblock", "revoke_tokens", "rotate_secret")

    @admin.display(description=_("client id"))
    def short_id(self, obj: OAuthClient) -> str:
        """Its beginning, or the whole of a URL."""
        known = str(obj.client_id)
        return known if known.startswith("https://") else known[:12]

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A script adds them and shows the secret once: manage.py add_client."""
        return False

    @admin.action(description=_("Block: end its tokens too"), permissions=["change"])
    def block(self, request: HttpRequest, queryset: Any) -> None:
        """Refuse it from now on."""
        self.revoke_tokens(request, queryset)
        for client in queryset.filter(blocked=False):
            self.switch(request, client, True)

    @admin.action(description=_("Unblock"), permissions=["change"])
    def unblock(self, request: HttpRequest, queryset: Any) -> None:
        """Let it sign people in again."""
        for client in queryset.filter(blocked=True):
            self.switch(request, client, False)

    def switch(self, request: HttpRequest, client: OAuthClient, on: bool) -> None:
        """Block or unblock one, on record."""
        client.blocked = on
        client.save(update_fields=["blocked"])
        self.note(request, "changed", client, {"blocked": [not on, on]})

    @admin.action(description=_("Revoke all its tokens"), permissions=["change"])
    def revoke_tokens(self, request: HttpRequest, queryset: Any) -> None:
        """End them from the next message on."""
        ended = sum(
            client.tokens().revoke(actor=request.user, reason="client ended")
            for client in queryset
        )
        told = ngettext("%d token revoked.", "%d tokens revoked.", ended) % ended
        self.message_user(request, told, messages.SUCCESS)

    @admin.action(
        description=_("Make a new secret, shown once"), permissions=["change"]
    )
    def rotate_secret(self, request: HttpRequest, queryset: Any) -> None:
        """The old one ends at once; public clients have none."""
        for client in queryset.filter(client_type=OAuthClient.CLIENT_CONFIDENTIAL):
            secret = secrets.token_urlsafe(48)
            client.client_secret = secret
            client.save(update_fields=["client_secret"])
            self.note(request, "secret_rotated", client)
            told = _("New secret of %(name)s, shown this once: %(secret)s")
            given = {"name": client, "secret": secret}
            self.message_user(request, told % given, messages.SUCCESS)

    def save_model(self, request: Any, obj: Any, form: Any, change: bool) -> None:
        """Save; a client that is blocked loses its tokens."""
        super().save_model(request, obj, form, change)
        if change and "blocked" in form.changed_data and obj.blocked:
            obj.tokens().revoke(actor=request.user, reason="client blocked")


@admin.register(DocumentHost)
class DocumentHostAdmin(Audited[DocumentHost]):
    """Hosts whose client documents are trusted or refused."""

    noun = "document_host"
    list_display = ("host", "trusted")
    search_fields = ("host",)


@admin.register(Consent)
class ConsentAdmin(ReadOnly[Consent]):
    """Who allowed which client what."""

    list_display = ("user", "client", "scope", "redirect_host", "given_at")
    search_fields = ("user__username", "client__name", "client__client_id")
