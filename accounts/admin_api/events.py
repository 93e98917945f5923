"""/api/v1/events/: the audit."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from accounts.admin_api.pages import Filters, text
from accounts.admin_api.views import ListView, documented
from accounts.models import AuditEvent

DECISIONS = ("allowed", "denied")


class EventSerializer(serializers.ModelSerializer[AuditEvent]):
    arguments = serializers.DictField(
        source="recorded",
        read_only=True,
        help_text="What the tool's policy records of the arguments of a call. Only "
        "with the permission accounts.view_arguments.",
    )

    class Meta:
        model = AuditEvent
        fields = (
            "id",
            "at",
            "action",
            "actor",
            "client_id",
            "token_id",
            "address",
            "object",
            "subject",
            "decision",
            "reason",
            "via",
            "outcome",
            "duration_ms",
            "request_id",
            "changes",
            "arguments",
        )
        read_only_fields = fields

    def to_representation(self, event: AuditEvent) -> Any:
        """Leave the arguments out for callers who may not view them."""
        shown = super().to_representation(event)
        request = self.context["request"]
        if not request.user.has_perm("accounts.view_arguments"):
            del shown["arguments"]
        return shown


@documented(tags=["events"])
class EventsView(ListView):
    """Audit events, the newest first."""

    model = AuditEvent
    serializer_class = EventSerializer
    ordering = ("-at", "-id")
    filters: Filters = {
        "action": ("action", text(64)),
        "actor": ("actor", text(150)),
        "client_id": ("client_id", text()),
        "token_id": ("token_id", text(64)),
        "request_id": ("request_id", text(64)),
        "object": ("object", text()),
        "subject": ("subject", text(64)),
        "decision": ("decision", serializers.ChoiceField(choices=DECISIONS)),
        "since": ("at__gte", serializers.DateTimeField()),
        "until": ("at__lt", serializers.DateTimeField()),
    }
