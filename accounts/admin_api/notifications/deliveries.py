"""/api/v1/deliveries/: what was sent to channels, and what came of it."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.response import Response

from accounts.admin_api.pages import Filters, text
from accounts.admin_api.views import ListView, documented
from accounts.models import Delivery
from accounts.models.notifications.deliveries import DeliveryState


class DeliverySerializer(serializers.ModelSerializer[Delivery]):
    channel = serializers.CharField(read_only=True, help_text="The channel's name.")

    class Meta:
        model = Delivery
        fields = (
            "id",
            "channel",
            "kind",
            "message_id",
            "state",
            "attempts",
            "result",
            "created_at",
            "attempted_at",
            "next_attempt_at",
            "delivered_at",
        )
        read_only_fields = fields


@documented(tags=["deliveries"])
class DeliveriesView(ListView):
    """Deliveries of the last 90 days."""

    model = Delivery
    serializer_class = DeliverySerializer
    filters: Filters = {
        "channel": ("channel__name", text(80)),
        "kind": ("kind", text(64)),
        "state": ("state", serializers.ChoiceField(choices=DeliveryState.choices)),
    }

    def get_queryset(self) -> Any:
        return super().get_queryset().select_related("channel")

    @documented(request=None)
    @action(methods=["post"], detail=True, url_path="send-again")
    def send_again(self, request: Any, pk: int) -> Response:
        """Attempt it now, also one that has arrived."""
        return self.act("send_again")
