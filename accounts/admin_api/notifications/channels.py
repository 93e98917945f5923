"""/api/v1/channels/: where notifications go. URLs and secrets are never shown."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.response import Response

from accounts.admin.notifications.channels import URL_FIELD
from accounts.admin_api.pages import Filters, text
from accounts.admin_api.views import (
    NOT_CHANGED,
    AddMixin,
    DeleteMixin,
    NoFields,
    documented,
)
from accounts.authorization.delegation import NotAllowed
from accounts.models import NotificationChannel
from accounts.models.notifications.channels import ChannelKind
from accounts.models.notifications.deliveries import DeliveryState

NOT_SIGNED = "Only signed webhooks have a secret."


class AddressesField(serializers.ListField):
    """A list that the column holds as one text."""

    child = text(254)

    def to_representation(self, data: Any) -> list[str]:
        return str(data).split()

    def to_internal_value(self, data: Any) -> Any:
        return "\n".join(super().to_internal_value(data))


class ChannelSerializer(serializers.ModelSerializer[NotificationChannel]):
    """`url` can only be written; `host` says where it leads."""

    mail_to = AddressesField(required=False, max_length=50)
    url = serializers.CharField(
        source=URL_FIELD, write_only=True, required=False, max_length=2000
    )
    events = serializers.ListField(child=text(64), help_text="Names of events.")
    last_result = serializers.SerializerMethodField()

    class Meta:
        model = NotificationChannel
        fields = (
            "id",
            "name",
            "kind",
            "mail_to",
            "url",
            "host",
            "events",
            "enabled",
            "last_result",
        )
        read_only_fields = ("host",)
        extra_kwargs: dict[str, Any] = {"name": {"validators": []}}

    def get_last_result(self, row: NotificationChannel) -> str:
        """The result of the newest attempt; empty before the first one."""
        last = row.last_delivery()
        return "" if last is None else last.result


class NewChannelSerializer(ChannelSerializer):
    """With the secret of signatures, once; only signed webhooks have one."""

    secret = serializers.CharField(required=False)

    class Meta(ChannelSerializer.Meta):
        fields: Any = (*ChannelSerializer.Meta.fields, "secret")


class TestedSerializer(serializers.Serializer[Any]):
    """What came of a test."""

    delivered = serializers.BooleanField()
    result = serializers.CharField()


@documented(tags=["channels"])
class ChannelsView(AddMixin, DeleteMixin):
    """Notification channels. Only superusers change them."""

    model = NotificationChannel
    serializer_class = ChannelSerializer
    filters: Filters = {
        "name": ("name", text(80)),
        "kind": ("kind", serializers.ChoiceField(choices=ChannelKind.choices)),
        "enabled": ("enabled", serializers.BooleanField()),
    }

    @documented(responses={201: NewChannelSerializer})
    def create(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        """Add a channel; the response has the secret of signatures, once."""
        return super().create(request, *args, **kwargs)

    def added(self, row: Any, **once: str) -> Response:
        signed = row.kind == ChannelKind.WEBHOOK
        return super().added(row, **({"secret": row.secret} if signed else {}))

    @documented(request=None, responses=NewChannelSerializer)
    @action(methods=["post"], detail=True, url_path="renew-secret")
    def renew_secret(self, request: Any, pk: int) -> Response:
        """Replace the secret of signatures; the old one signs nothing any more."""
        if self.get_object().kind != ChannelKind.WEBHOOK:
            raise NotAllowed(NOT_SIGNED)
        self.act("renew_secret")
        channel = self.get_object()
        return self.shown(channel, secret=channel.secret)

    @documented(request=None, responses=TestedSerializer)
    @action(methods=["post"], detail=True)
    def test(self, request: Any, pk: int) -> Response:
        """Send a test now. Waits for the answer of the receiver."""
        self.asked(NoFields)
        channel = self.get_object()
        if not self.page.has_change_permission(self.acting, channel):
            raise NotAllowed(NOT_CHANGED)
        sent = self.page.send_test_to(self.acting, channel)
        delivered = sent.state == DeliveryState.DELIVERED
        return Response({"delivered": delivered, "result": sent.result})
