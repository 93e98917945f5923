"""/api/v1/events/: the audit."""

from __future__ import annotations

from rest_framework import serializers

from accounts.admin_api.pages import Filters, text
from accounts.admin_api.views import ListView, documented
from accounts.models import AuditEvent

DECISIONS = ("allowed", "denied")


class EventSerializer(serializers.ModelSerializer[AuditEvent]):
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
        )
        read_only_fields = fields


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
