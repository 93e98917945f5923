"""/api/v1/events/: the audit, newest first, and as a stream in sealing order."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.response import Response

from accounts.admin_api.pages import DEFAULT_LIMIT, Filters, text
from accounts.admin_api.views import ListView, documented
from accounts.models import AuditEvent, AuditSeal
from accounts.models.audit.events import events_about
from accounts.models.lookups import WithoutIndex

DECISIONS = ("allowed", "denied")
MOST_STREAMED = 1000
LARGEST_ID = 2**63 - 1


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


class StreamQuery(serializers.Serializer[Any]):
    """Parameters of the stream."""

    cursor = serializers.IntegerField(
        min_value=0,
        max_value=LARGEST_ID,
        default=0,
        help_text="The cursor of the previous page; 0 or none starts at the oldest.",
    )
    limit = serializers.IntegerField(
        min_value=1, max_value=MOST_STREAMED, default=DEFAULT_LIMIT
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse unknown parameters by name."""
        unknown = sorted(set(self.initial_data) - set(self.fields))
        if unknown:
            known = "There is no such parameter; there are: cursor, limit."
            raise ValidationError({name: [known] for name in unknown})
        return attrs


class StreamSerializer(serializers.Serializer[Any]):
    """A page of the stream."""

    results = EventSerializer(many=True)
    cursor = serializers.IntegerField(help_text="Send it to get the next page.")
    more = serializers.BooleanField(help_text="Whether the next page has events now.")
    missed = serializers.BooleanField(
        help_text="Whether retention deleted events after the cursor that was sent."
    )


BY_VALUE = ("token_id", "actor", "client_id", "object", "action")
"""Filters with an index, usually the rarest first."""
RARE = 20_000
"""Events of one value that a list reads."""


def is_rare(name: str, value: Any) -> bool:
    """Whether few events have this value, by an index."""
    if value is None:
        return False
    events = AuditEvent.objects.filter(**{name: value}).order_by()
    return events[: RARE + 1].count() <= RARE


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

    def narrow(self, rows: Any, conditions: dict[str, Any]) -> Any:
        """Let a rare value decide which index SQLite uses.

        It cannot know which of several values is rare, and would read all events of
        the first one.
        """
        if "subject" in conditions:
            rows = rows.filter(events_about(conditions["subject"]))
        rare = next((n for n in BY_VALUE if is_rare(n, conditions.get(n))), None)
        if rare is None:
            return rows.filter(**conditions)
        others = [n for n in BY_VALUE if n in conditions and n != rare]
        aliases = {f"unindexed_{n}": WithoutIndex(n) for n in others}
        values = {f"unindexed_{n}": conditions.pop(n) for n in others}
        return rows.alias(**aliases).filter(**values, **conditions)

    @documented(parameters=[StreamQuery], responses=StreamSerializer, filters=False)
    @action(detail=False, pagination_class=None)
    def stream(self, request: Any) -> Response:
        """Sealed events in the order of the seals, the oldest first.

        Store the cursor after the events: then each event arrives at least once. No
        event can appear before a cursor, because only sealed events are shown.
        """
        query = StreamQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        cursor, limit = (query.validated_data[name] for name in ("cursor", "limit"))
        head = AuditSeal.objects.all().head()
        sealed = self.get_queryset().filter(
            id__gt=cursor, id__lte=head.last_id if head else 0
        )
        rows = list(sealed.order_by("id")[: limit + 1])
        page = rows[:limit]
        return Response(
            {
                "results": self.get_serializer(page, many=True).data,
                "cursor": page[-1].pk if page else cursor,
                "more": len(rows) > limit,
                "missed": AuditSeal.objects.all().missed_since(cursor),
            }
        )
