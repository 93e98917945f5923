"""/api/v1/tools/: tools, resources, resource templates and prompts."""

from __future__ import annotations

from functools import partial
from typing import Any

from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.response import Response

from accounts.admin_api.admin_forms import InlineRows
from accounts.admin_api.pages import Filters, NamesField, text
from accounts.admin_api.problems import Conflict
from accounts.admin_api.views import NOT_CHANGED, DeleteMixin, documented
from accounts.authorization.delegation import NotAllowed
from mcp_bridge.access import definitions
from mcp_bridge.access.definition_review import Line, difference_lines
from mcp_bridge.admin.argument_rules import TEXTS, as_entered
from mcp_bridge.admin.upstreams.review import review_entry
from mcp_bridge.admin_api.switches import SwitchMixin
from mcp_bridge.models import (
    ArgumentOperator,
    ArgumentRule,
    DefinitionState,
    Primitive,
    PrimitiveKind,
    RecordedArguments,
)
from mcp_bridge.models.argument_rules import MAX_POINTER, MAX_RULES

MAX_REASON = 500
STALE = "The definition has changed since the review. Review it again."
NOTHING_WAITS = "Nothing waits for a decision."


class RuleSerializer(serializers.Serializer[ArgumentRule]):
    """A condition on one argument."""

    id = serializers.IntegerField(
        required=False, help_text="Of a present rule, to change it."
    )
    pointer = serializers.CharField(
        max_length=MAX_POINTER, help_text="A JSON pointer into the arguments."
    )
    operator = serializers.ChoiceField(choices=ArgumentOperator.choices)
    value = serializers.JSONField(
        required=False, allow_null=True, help_text="A number, text, or list of values."
    )
    role = serializers.CharField(
        max_length=100,
        required=False,
        allow_null=True,
        help_text="Its name; null means every role.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """The inputs of the admin's form; a value has the type that it had in JSON."""
        operator, value = attrs["operator"], attrs.get("value")
        if operator in TEXTS and not isinstance(value, str):
            raise ValidationError({"value": "This condition needs a text."})
        if operator == ArgumentOperator.ONE_OF and not isinstance(value, list):
            raise ValidationError({"value": "This condition needs a list."})
        entered = as_entered(operator, value)
        return {**attrs, "value": entered, "role": attrs.get("role") or ""}


def shown_rule(rule: ArgumentRule) -> dict[str, Any]:
    """The inputs of a rule, as `RuleSerializer` makes them."""
    return {
        "pointer": rule.pointer,
        "operator": rule.operator,
        "value": as_entered(rule.operator, rule.value),
        "role": rule.role.name if rule.role else "",
    }


class DecisionSerializer(serializers.Serializer[Any]):
    definition = serializers.CharField(
        max_length=64, help_text="From the review: the definition that was read."
    )


class RejectionSerializer(DecisionSerializer):
    reason = serializers.CharField(max_length=MAX_REASON)


class DifferenceSerializer(serializers.Serializer[Line]):
    path = serializers.CharField()
    before = serializers.CharField(help_text="Empty if it was not there.")
    after = serializers.CharField()


class ReviewSerializer(serializers.Serializer[Any]):
    """What an administrator compares before a definition is accepted."""

    definition = serializers.CharField(help_text="A hash of what is offered.")
    state = serializers.ChoiceField(choices=DefinitionState.choices)
    new = serializers.BooleanField()
    differences = DifferenceSerializer(many=True)
    suspicions = serializers.ListField(child=serializers.CharField())
    objection = serializers.CharField(
        help_text="Why you cannot accept it; empty if you can."
    )


class ToolSerializer(serializers.ModelSerializer[Primitive]):
    required_scopes = NamesField(
        required=False, help_text="Any one of these scopes is enough."
    )
    upstream = serializers.CharField(
        source="upstream.name", read_only=True, allow_null=True, default=None
    )

    argument_rules: Any = serializers.ListSerializer(
        child=RuleSerializer(),
        required=False,
        max_length=MAX_RULES,
        help_text="The whole list: rules that are left out are deleted.",
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
            "argument_rules",
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
class ToolsView(SwitchMixin, DeleteMixin):
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
        "recorded_arguments": (
            "recorded_arguments",
            serializers.ChoiceField(choices=RecordedArguments.choices),
        ),
    }

    inline_rows = {"argument_rules": InlineRows(ArgumentRule, shown_rule)}

    def get_queryset(self) -> Any:
        rows = super().get_queryset().select_related("upstream")
        return rows.prefetch_related("argument_rules__role")

    @documented(responses=ReviewSerializer, filters=False)
    @action(detail=True, pagination_class=None)
    def review(self, request: Any, pk: int) -> Response:
        """What differs between the accepted definition and the one that is offered."""
        entry = review_entry(self.get_object(), request.user)
        differences = difference_lines(entry.row.accepted, entry.row.offered)
        found = {
            "definition": entry.row.definition,
            "state": entry.row.state,
            "new": entry.new,
            "differences": differences,
            "suspicions": entry.marks,
            "objection": entry.objection,
        }
        return Response(ReviewSerializer(found).data)

    @documented(request=DecisionSerializer)
    @action(methods=["post"], detail=True)
    def accept(self, request: Any, pk: int) -> Response:
        """Accept the definition that was reviewed."""
        return self.decide(self.asked(DecisionSerializer), definitions.accept)

    @documented(request=RejectionSerializer)
    @action(methods=["post"], detail=True)
    def reject(self, request: Any, pk: int) -> Response:
        """Reject the definition that was reviewed; nobody can use it."""
        given = self.asked(RejectionSerializer)
        return self.decide(given, partial(definitions.reject, reason=given["reason"]))

    def decide(self, given: dict[str, Any], decision: Any) -> Response:
        """Raises NotAllowed, Conflict."""
        row = self.get_object()
        if not self.page.has_change_permission(self.acting, row):
            raise NotAllowed(NOT_CHANGED)
        reviewed = {row.pk: given["definition"]}
        try:
            done = decision(
                [row], actor=self.acting.user, request=self.acting, reviewed=reviewed
            )
        except definitions.StaleDefinition as error:
            raise Conflict(STALE) from error
        except ValueError as error:
            raise Conflict(str(error)) from error
        if not done:
            raise Conflict(NOTHING_WAITS)
        return self.shown(self.get_object())
