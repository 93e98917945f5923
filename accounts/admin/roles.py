"""Admin pages of scopes and roles."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.admin_site.base import ActorFormMixin, Base, DelegatedAdmin, M
from accounts.admin_site.navigation.groups import Section
from accounts.authorization.delegation import (
    NOT_YOURS,
    objection_to_role,
    scope_objection,
)
from accounts.models import ClaimRule, Role, Scope, User


class RoleForm(forms.ModelForm):  # type: ignore[type-arg]
    """Editors may add only scopes that they have, from the same networks."""

    actor: User

    def clean(self) -> dict[str, Any]:
        """Check both scopes and networks: wider networks grant more, too."""
        cleaned = super().clean() or {}
        scopes = [scope.name for scope in cleaned.get("scopes", ())]
        problem = scope_objection(self.actor, scopes, cleaned.get("networks", ""))
        if problem:
            self.add_error("scopes", forms.ValidationError(problem, NOT_YOURS))
        return cleaned


class DescribedMixin(Base[M]):
    """Rows with a description; those that come with Portico are translated."""

    @admin.display(description=_("description"), ordering="description")
    def about(self, obj: Any) -> str:
        return gettext(obj.description) if obj.description else "-"


@admin.register(Scope)
class ScopeAdmin(DescribedMixin[Scope], DelegatedAdmin[Scope]):
    noun = "scope"
    place = (Section.ACCESS, 60)
    intro = _(
        "Tools require scopes and roles grant them. Every tool has "
        "its own scope, such as tool:whoami."
    )
    list_display = ("name", "about", "given_by")
    search_fields = ("name", "description")

    def may_change_row(self, actor: Any, obj: Scope) -> bool:
        """Superusers only: a scope affects every role that grants it."""
        return bool(actor.is_superuser)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Scope]:
        rows: QuerySet[Scope] = super().get_queryset(request)
        return rows.prefetch_related("roles")

    @admin.display(description=_("in roles"))
    def given_by(self, obj: Scope) -> str:
        return ", ".join(role.name for role in obj.roles.all()) or "-"


@admin.register(Role)
class RoleAdmin(DescribedMixin[Role], ActorFormMixin[Role], DelegatedAdmin[Role]):
    noun = "role"
    place = (Section.ACCESS, 10)
    intro = _(
        "A role is a set of scopes. Its users can use every tool "
        "that requires one of them."
    )
    nothing_yet = _(
        "No roles yet. Add a role and give it scopes, or use the access matrix."
    )
    list_display = ("name", "about", "scope_names", "holders")
    search_fields = ("name", "description", "scopes__name")
    filter_horizontal = ("scopes",)
    form = RoleForm

    def may_change_row(self, actor: Any, obj: Role) -> bool:
        """The role must be within the actor's rights, and so must all its users."""
        return not objection_to_role(actor, obj)

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        """Deleting a role deletes its claim rules, which only superusers may change."""
        allowed = super().has_delete_permission(request, obj)
        if obj is None or request.user.is_superuser:
            return allowed
        return allowed and not ClaimRule.objects.filter(role=obj).exists()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Role]:
        rows: QuerySet[Role] = super().get_queryset(request)
        return rows.prefetch_related("scopes").annotate(held_by=Count("assignments"))

    @admin.display(description=_("scopes"))
    def scope_names(self, obj: Role) -> str:
        return ", ".join(scope.name for scope in obj.scopes.all()) or "-"

    @admin.display(description=_("users"), ordering="held_by")
    def holders(self, obj: Role) -> int:
        """Number of assignments, expired ones included."""
        count: int = obj.held_by  # type: ignore[attr-defined]
        return count
