"""/api/v1/clients/: OAuth clients. A secret is in one response only."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.response import Response

from accounts.admin_api.pages import Filters, text
from accounts.admin_api.views import NOT_CHANGED, AddMixin, DeleteMixin, documented
from accounts.authorization.delegation import (
    NotAllowed,
    objection_to_client,
    objection_to_host,
    objection_to_tokens_of,
)
from accounts.models import DocumentHost, OAuthClient
from accounts.models.oauth import AUTH_METHODS


class WordsField(serializers.ListField):
    """A list that the column holds as one text with spaces."""

    child = text(2048)

    def to_representation(self, data: Any) -> list[str]:
        return str(data).split()

    def to_internal_value(self, data: Any) -> Any:
        return " ".join(super().to_internal_value(data))


class ClientSerializer(serializers.ModelSerializer[OAuthClient]):
    redirect_uris = WordsField(required=False)
    grant_types = serializers.ListField(child=text(100), required=False)
    token_endpoint_auth_method = serializers.ChoiceField(
        choices=AUTH_METHODS, required=False
    )
    service_account = serializers.CharField(
        max_length=150, required=False, allow_null=True, help_text="A username."
    )
    client_jwks = serializers.DictField(required=False)

    class Meta:
        model = OAuthClient
        fields: Any = (
            "id",
            "client_id",
            "name",
            "registration_source",
            "redirect_uris",
            "token_endpoint_auth_method",
            "grant_types",
            "client_jwks",
            "service_account",
            "networks",
            "max_idle",
            "approved",
            "blocked",
            "created",
            "last_used_at",
        )
        read_only_fields = (
            "client_id",
            "registration_source",
            "created",
            "last_used_at",
        )


class NewClientSerializer(ClientSerializer):
    """A client with the secret that it has just got; public clients have none."""

    client_secret = serializers.CharField(required=False)

    class Meta(ClientSerializer.Meta):
        fields: Any = (*ClientSerializer.Meta.fields, "client_secret")


@documented(tags=["clients"])
class ClientsView(AddMixin, DeleteMixin):
    """OAuth clients."""

    model = OAuthClient
    serializer_class = ClientSerializer
    filters: Filters = {
        "client_id": ("client_id", text()),
        "name": ("name", text()),
        "blocked": ("blocked", serializers.BooleanField()),
        "approved": ("approved", serializers.BooleanField()),
    }

    def objection(self, row: OAuthClient) -> str:
        actor: Any = self.request.user
        return objection_to_client(actor, row) or objection_to_tokens_of(actor, row)

    def change(self, row: OAuthClient, given: dict[str, Any]) -> None:
        """As the admin: blocking is an action, not a field of the form."""
        blocked = given.pop("blocked", row.blocked)
        if given:
            super().change(row, given)
        self.switch(row, blocked)

    def add(self, given: dict[str, Any]) -> OAuthClient:
        blocked = given.pop("blocked", False)
        row: OAuthClient = super().add(given)
        self.switch(row, blocked)
        return row

    def switch(self, row: OAuthClient, blocked: bool) -> None:
        """Block the client and end its access, or unblock it."""
        if blocked and not row.blocked:
            self.page.end_clients(self.acting, [row], "client blocked")
        self.page.switch(self.acting, row, blocked)

    @documented(responses={201: NewClientSerializer})
    def create(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        """Add a client; the response has its secret, once."""
        return super().create(request, *args, **kwargs)

    def added(self, row: Any, **once: str) -> Response:
        raw = getattr(row, "shown_once", "")
        return super().added(row, **({"client_secret": raw} if raw else {}))

    @documented(request=None, responses=NewClientSerializer)
    @action(methods=["post"], detail=True, url_path="rotate-secret")
    def rotate_secret(self, request: Any, pk: int) -> Response:
        """Replace the secret; the old one stops working at once."""
        with transaction.atomic():
            client = self.locked()
            if not self.page.has_change_permission(self.acting, client):
                raise NotAllowed(self.objection(client) or NOT_CHANGED)
            if client.client_type != OAuthClient.CLIENT_CONFIDENTIAL:
                raise NotAllowed("A public client has no secret.")
            raw = self.page.rotate(self.acting, client)
        return self.shown(self.get_object(), client_secret=raw)

    @documented(request=None)
    @action(methods=["post"], detail=True, url_path="revoke-tokens")
    def revoke_tokens(self, request: Any, pk: int) -> Response:
        """Revoke all tokens of the client."""
        return self.act("revoke_tokens")


class HostSerializer(serializers.ModelSerializer[DocumentHost]):
    class Meta:
        model = DocumentHost
        fields = ("id", "host", "trusted")
        extra_kwargs: dict[str, Any] = {"host": {"validators": []}}


@documented(tags=["document-hosts"])
class DocumentHostsView(AddMixin, DeleteMixin):
    """Hosts of client metadata documents: trusted, or blocked with their clients."""

    model = DocumentHost
    serializer_class = HostSerializer
    filters: Filters = {
        "host": ("host", text()),
        "trusted": ("trusted", serializers.BooleanField()),
    }

    def objection(self, row: DocumentHost) -> str:
        actor: Any = self.request.user
        return objection_to_host(actor, row)
