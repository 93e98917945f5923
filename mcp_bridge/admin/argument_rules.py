"""Argument rules on the page of a tool or prompt: add, change, delete."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.forms.models import BaseInlineFormSet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.admin.role_assignments import RoleRowsInline
from accounts.admin_site.base import may
from accounts.models import User
from accounts.parsing.json_form_field import JSON_ERRORS
from mcp_bridge.access.argument_rules import same
from mcp_bridge.admin.declared_arguments import (
    declared,
    input_schema,
    misfit,
    types_of,
)
from mcp_bridge.models import (
    WITH_ARGUMENTS,
    ArgumentOperator,
    ArgumentRule,
    Primitive,
    PrimitiveKind,
    rule_problem,
)
from mcp_bridge.models.argument_rules import MAX_POINTER, MAX_RULES, pointer_validator

CHANGE = "mcp_bridge.change_primitive"
LONGEST_ENTRY = 20_000
"""Characters of a value as it is entered."""
TEXTS = (ArgumentOperator.MATCHES, ArgumentOperator.STARTS_WITH)


def as_entered(condition: str, value: Any) -> str:
    """A rule's value as the form shows it: a text without quotes, a list as JSON."""
    if value is None:
        return ""
    if condition in TEXTS and isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def parsed(condition: str, text: str, types: frozenset[str]) -> Any:
    """The value of an entry for this condition. Raises ValidationError.

    A list is JSON, or has one value a line; `types` of the argument say whether a line
    is a text.
    """
    if condition in TEXTS:
        return text
    stripped = text.strip()
    if not stripped:
        return None
    if condition == ArgumentOperator.ONE_OF and not stripped.startswith("["):
        lines = [line.strip() for line in stripped.splitlines() if line.strip()]
        if not types or "string" in types:
            return lines
        return [parsed_json(line) for line in lines]
    if condition == ArgumentOperator.ABSENT:
        return stripped
    return parsed_json(stripped)


def parsed_json(text: str) -> Any:
    """A JSON value, or the text if it is none: the check of the rule names it."""
    try:
        return json.loads(text)
    except JSON_ERRORS:
        return text


def narrows(before: ArgumentRule, after: ArgumentRule) -> bool:
    """Whether the changed rule refuses all that it refused before."""
    if (before.pointer, before.operator) != (after.pointer, after.operator):
        return False
    if after.role_id is not None and before.role_id != after.role_id:
        return False
    old: Any = before.value
    if rule_problem(PrimitiveKind.TOOL, before.operator, old):
        return False
    tighter = TIGHTER.get(before.operator)
    return tighter(after.value, old) if tighter else bool(after.value == old)


TIGHTER: dict[str, Callable[[Any, Any], bool]] = {
    ArgumentOperator.AT_MOST: operator.le,
    ArgumentOperator.AT_LEAST: operator.ge,
    ArgumentOperator.STARTS_WITH: lambda new, old: new.startswith(old),
    ArgumentOperator.ONE_OF: lambda new, old: all(
        any(same(one, other) for other in old) for one in new
    ),
}
"""Operator -> whether a new value allows nothing that the old one refused."""


class PointerField(forms.CharField):
    """A JSON pointer; `amount` stands for `/amount`."""

    def to_python(self, value: Any) -> str:
        text = super().to_python(value) or ""
        return text if not text or text.startswith("/") else f"/{text}"


class RuleForm(forms.ModelForm):  # type: ignore[type-arg]
    """One rule; the value is read as the condition and the argument need it."""

    actor: User
    pointer = PointerField(
        label=gettext_lazy("argument"),
        max_length=MAX_POINTER,
        validators=[pointer_validator],
        widget=forms.TextInput(attrs={"size": 20, "placeholder": "/amount"}),
        help_text=gettext_lazy(
            "A JSON pointer (RFC 6901) into the arguments, such as /amount."
        ),
    )
    value = forms.CharField(
        label=gettext_lazy("value"),
        required=False,
        strip=False,
        max_length=LONGEST_ENTRY,
        widget=forms.Textarea(attrs={"rows": 1, "cols": 24}),
        help_text=gettext_lazy(
            "A number or a text. For “is one of”, one value a line, or a JSON list."
        ),
    )

    class Meta:
        model = ArgumentRule
        fields = ("pointer", "operator", "value", "role")

    def __init__(self, *args: Any, primitive: Primitive, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rule: Any = self.instance
        rule.primitive = primitive
        if rule.pk:
            self.initial["value"] = as_entered(rule.operator, rule.value)
        self.before = ArgumentRule(
            pointer=rule.pointer,
            operator=rule.operator,
            value=rule.value,
            role_id=rule.role_id,
        )
        self.fields["role"].empty_label = _("every role")  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        pointer, condition = cleaned.get("pointer"), cleaned.get("operator")
        if not pointer or not condition or "value" not in cleaned:
            return cleaned
        schema = input_schema(self.instance.primitive)
        node = declared(schema, pointer)
        types = types_of(schema, node) if node else frozenset()
        text = cleaned["value"].replace("\r\n", "\n")
        cleaned["value"] = parsed(condition, text, types)
        return cleaned

    def _post_clean(self) -> None:
        """Check the rule itself, then whether a call can meet it, then the actor."""
        super()._post_clean()  # type: ignore[misc]
        if self.errors or not self.has_changed():
            return
        rule: Any = self.instance
        schema = input_schema(rule.primitive)
        field, problem = misfit(schema, rule.pointer, rule.operator, rule.value)
        if problem:
            self.add_error(field, problem)
        elif rule.pk and not self.actor.is_superuser and not narrows(self.before, rule):
            text = _("Only superusers can widen an argument rule. You can add rules.")
            self.add_error(None, text)


class RuleFormSet(BaseInlineFormSet):  # type: ignore[type-arg]
    """At most MAX_RULES, none twice."""

    def get_form_kwargs(self, index: int | None) -> dict[str, Any]:
        return {**super().get_form_kwargs(index), "primitive": self.instance}

    def clean(self) -> None:
        super().clean()
        kept = [
            form
            for form in self.forms
            if form not in self.deleted_forms
            and (form.has_changed() or form.instance.pk)
        ]
        mine = [form.instance.pk for form in self.forms if form.instance.pk]
        others = self.instance.argument_rules.exclude(pk__in=mine).count()
        if len(kept) + others > MAX_RULES:
            raise ValidationError(_("At most %d argument rules.") % MAX_RULES)
        seen = set()
        for form in kept:
            rule = form.instance
            key = (rule.role_id, rule.pointer, rule.operator, json.dumps(rule.value))
            if key in seen:
                raise ValidationError(_("This rule is there twice: %s") % rule)
            seen.add(key)


class ArgumentRuleInline(RoleRowsInline):
    """Whoever may change the primitive adds and tightens; superusers widen."""

    model = ArgumentRule
    most = MAX_RULES
    form = RuleForm
    formset = RuleFormSet
    extra = 0
    fields = ("pointer", "operator", "value", "role")

    def get_queryset(self, request: Any) -> Any:
        return super().get_queryset(request).select_related("role", "primitive")

    def has_view_permission(self, request: Any, obj: Any = None) -> bool:
        """Others read the rules in words, above the form."""
        return may(request, CHANGE)

    def has_add_permission(self, request: Any, obj: Any = None) -> bool:
        return may(request, CHANGE)

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        return may(request, CHANGE)

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        """Without a rule, a call may contain more."""
        return may(request, CHANGE) and bool(request.user.is_superuser)


def has_arguments(primitive: Primitive | None) -> bool:
    return primitive is not None and primitive.kind in WITH_ARGUMENTS


def rule_with_role(rule: ArgumentRule) -> str:
    """The rule as a sentence, with its role."""
    if rule.role is None:
        return str(rule)
    return _("{limit} (role {role})").format(limit=rule, role=rule.role)
