"""/api/v1/tools/: tools, resources, resource templates and prompts."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.response import Response

from accounts.admin_api.pages import Filters, NamesField, text
from accounts.admin_api.views import DeleteMixin, documented
from mcp_bridge.models import DefinitionState, Primitive, PrimitiveKind


class ToolSerializer(serializers.ModelSerializer[Primitive]):
    required_scopes = NamesField(
        required=False, help_text="Any one of these scopes is enough."
    )
    upstream = serializers.CharField(
        source="upstream.name", read_only=True, allow_null=True, default=None
    )

    class Meta:
        model = Primitive
        fields = (
            "id",
            "kind",
            "name",
            "title",
            "description",
            "enabled",
            "sensitive",
            "required_scopes",
            "recorded_arguments",
            "state",
            "problem",
            "upstream",
            "first_seen_at",
            "last_seen_at",
            "changed_at",
            "vanished_at",
        )
        read_only_fields = (
            "kind",
            "name",
            "title",
            "description",
            "state",
            "problem",
            "first_seen_at",
            "last_seen_at",
            "changed_at",
            "vanished_at",
        )


@documented(tags=["tools"])
class ToolsView(DeleteMixin):
    """What the server offers, and who may use it. Only superusers widen access."""

    model = Primitive
    serializer_class = ToolSerializer
    filters: Filters = {
        "kind": ("kind", serializers.ChoiceField(choices=PrimitiveKind.choices)),
        "name": ("name", text()),
        "state": ("state", serializers.ChoiceField(choices=DefinitionState.choices)),
        "scope": ("required_scopes__name", text()),
        "upstream": ("upstream__name", text()),
        "enabled": ("enabled", serializers.BooleanField()),
        "sensitive": ("sensitive", serializers.BooleanField()),
    }

    def get_queryset(self) -> Any:
        return super().get_queryset().select_related("upstream")

    @documented(request=None)
    @action(methods=["post"], detail=True)
    def enable(self, request: Any, pk: int) -> Response:
        """Enable it; gone ones stay disabled."""
        return self.act("enable")

    @documented(request=None)
    @action(methods=["post"], detail=True)
    def disable(self, request: Any, pk: int) -> Response:
        """Hide it from everyone."""
        return self.act("disable")

    @documented(request=None)
    @action(methods=["post"], detail=True)
    def accept(self, request: Any, pk: int) -> Response:
        """Accept its changed definition."""
        return self.act("accept")
