"""Tools, resources and prompts in the admin."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from accounts.admin_site.base import ActorFormMixin, AuditedAdmin
from accounts.admin_site.navigation.groups import Section
from accounts.authorization.delegation import NOT_YOURS, NotAllowed, widens_access
from accounts.models import User
from mcp_bridge.access import definitions
from mcp_bridge.access.policy_file import rules_of
from mcp_bridge.admin.argument_rules import (
    ArgumentRuleInline,
    has_arguments,
    rule_with_role,
)
from mcp_bridge.admin.upstreams.review import state_badges
from mcp_bridge.models import DefinitionState, Primitive, RecordedArguments
from mcp_bridge.upstreams.registration.problem_texts import problem_in_words


class PrimitiveForm(forms.ModelForm):  # type: ignore[type-arg]
    """Only superusers widen access; others may narrow it."""

    actor: User

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """A form that was sent without the policy of arguments keeps it."""
        super().__init__(*args, **kwargs)
        name = "recorded_arguments"
        if self.data and name in self.fields and name not in self.data:
            sent: Any = self.data
            sent = sent.copy()
            sent[name] = self.initial[name]
            self.data = sent

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        changes = {
            name: (self.initial.get(name), cleaned[name])
            for name in self.changed_data
            if name in cleaned
        }
        if not self.actor.is_superuser and widens_access(changes):
            problem = _(
                "Only superusers can give more people access. You can restrict access."
            )
            raise forms.ValidationError(problem, NOT_YOURS)
        return cleaned


class RecordedFilter(admin.SimpleListFilter):
    """By policy. The name of the column says that it holds arguments; it does not."""

    title, parameter_name = _("recorded arguments"), "records"

    def lookups(self, request: Any, model_admin: Any) -> Any:
        return RecordedArguments.choices

    def queryset(self, request: Any, queryset: Any) -> Any:
        policy = self.value()
        known = policy in RecordedArguments.values
        return queryset.filter(recorded_arguments=policy) if known else queryset


@admin.register(Primitive)
class PrimitiveAdmin(ActorFormMixin[Primitive], AuditedAdmin[Primitive]):
    """Rows come from code at server start; access is set here."""

    noun = "primitive"
    place = (Section.TOOLS, 10)
    intro = _(
        "Tools, resources and prompts of your apps and of upstream servers. "
        "Scopes decide who can use each one. Changes apply "
        "immediately."
    )
    nothing_yet = _(
        "No tools, resources or prompts yet. Add an app with an "
        "mcp_tools.py to EXTRA_APPS and restart the server."
    )
    list_display = ("name", "kind", "enabled", "sensitive", "scopes", "review")
    list_filter = (
        "kind",
        "state",
        "upstream",
        "enabled",
        "sensitive",
        RecordedFilter,
        "required_scopes",
    )
    linked_lookups = ("changed_at__isnull",)
    show_facets = admin.ShowFacets.NEVER  # Facets count once per scope.
    search_fields = ("name", "title", "description", "required_scopes__name")
    fields = (
        "kind",
        "name",
        "upstream",
        "state",
        "trouble",
        "title",
        "description",
        "enabled",
        "sensitive",
        "required_scopes",
        "limits",
        "recorded_arguments",
        "first_seen_at",
        "last_seen_at",
        "changed_at",
        "vanished_at",
    )
    readonly_fields = (
        "kind",
        "name",
        "upstream",
        "state",
        "trouble",
        "title",
        "description",
        "limits",
        "first_seen_at",
        "last_seen_at",
        "changed_at",
        "vanished_at",
    )
    inlines = (ArgumentRuleInline,)
    filter_horizontal = ("required_scopes",)
    actions = ("enable", "disable", "accept")
    form = PrimitiveForm

    def has_widen_permission(self, request: Any) -> bool:
        """Only superusers widen access."""
        return bool(request.user.is_superuser)

    @admin.action(description=_("Enable the selected items"), permissions=["widen"])
    def enable(self, request: HttpRequest, queryset: QuerySet[Primitive]) -> None:
        """Enable those that still exist in code."""
        self.switch(request, queryset.filter(enabled=False, vanished_at=None), True)

    @admin.action(description=_("Disable the selected items"), permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[Primitive]) -> None:
        """Refuse them for every user, from the next message on."""
        self.switch(request, queryset.filter(enabled=True), False)

    @admin.action(
        description=_("Accept the changed definitions of the selected items"),
        permissions=["change"],
    )
    def accept(self, request: HttpRequest, queryset: QuerySet[Primitive]) -> None:
        """Confirm that staff reviewed the changed definition."""
        rows = queryset.filter(state=DefinitionState.CHANGED)
        try:
            definitions.accept(rows, actor=request.user, request=request)
        except (NotAllowed, ValueError) as error:
            self.message_user(request, str(error), messages.ERROR)

    def switch(self, request: HttpRequest, rows: QuerySet[Primitive], on: bool) -> None:
        """Enable or disable; records each change."""
        count = 0
        for primitive in rows:
            primitive.enabled = on
            primitive.save(update_fields=["enabled"])
            self.record_change(request, "changed", primitive, {"enabled": [not on, on]})
            count += 1
        message = ngettext("%d item changed.", "%d items changed.", count) % count
        self.message_user(request, message, messages.SUCCESS)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Primitive]:
        # A search selects distinct rows, which compares every column it reads.
        rows = super().get_queryset(request).prefetch_related("required_scopes")
        rows = rows.select_related("upstream")
        return rows.defer("accepted", "accepted_hash", "offered")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Resources have no arguments to record."""
        fields = super().get_fields(request, obj)
        if obj is None or not obj.kind or has_arguments(obj):
            return fields
        return [name for name in fields if name != "recorded_arguments"]

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        """Resources have no arguments."""
        return self.inlines if has_arguments(obj) else ()

    def audited_rows(self, obj: Primitive) -> dict[str, Any]:
        rules = obj.argument_rules.select_related("role")
        return {"argument_rules": rules_of(rules)}

    @admin.display(description=_("reason"))
    def trouble(self, obj: Primitive) -> str:
        return problem_in_words(obj.problem) or "-"

    @admin.display(description=_("argument rules"))
    def limits(self, obj: Primitive) -> Any:
        """Each rule as a sentence; the role is named after it."""
        rules = obj.argument_rules.select_related("role")
        lines = [(rule_with_role(rule),) for rule in rules]
        return format_html_join(mark_safe("<br>"), "{}", lines) or "-"

    @admin.display(description=_("required scopes (any one)"))
    def scopes(self, obj: Primitive) -> str:
        return ", ".join(scope.name for scope in obj.required_scopes.all()) or "-"

    @admin.display(description=_("needs review"))
    def review(self, obj: Primitive) -> Any:
        """Why nobody can call it or staff should review it; empty if neither."""
        return state_badges(obj)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Only superusers, and only rows that code no longer offers.

        Deleting any other row would not last: the server start adds it again. Deleting
        a disabled one would enable it if code offers it again.
        """
        allowed = bool(request.user.is_superuser)
        return allowed and (obj is None or obj.vanished_at is not None)
