"""Scopes and roles."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import Audited
from accounts.models import Role, Scope
from accounts.site import Section


@admin.register(Scope)
class ScopeAdmin(Audited[Scope]):
    """Names of what may be done."""

    noun = "scope"
    place = (Section.PEOPLE, 30)
    intro = _(
        "What tools ask for and roles give. Every tool has a scope of its own, such as"
        " tool:whoami."
    )
    list_display = ("name", "description", "given_by")
    search_fields = ("name", "description")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Scope]:
        """With the roles that give each."""
        return super().get_queryset(request).prefetch_related("roles")

    @admin.display(description=_("given by"))
    def given_by(self, obj: Scope) -> str:
        """Roles that give it."""
        return ", ".join(role.name for role in obj.roles.all()) or "-"


@admin.register(Role)
class RoleAdmin(Audited[Role]):
    """Bundles of scopes."""

    noun = "role"
    place = (Section.PEOPLE, 20)
    intro = _(
        "A role is a set of scopes. Who holds it may use every tool that accepts one "
        "of them."
    )
    nothing_yet = _("Add a role and give it scopes, or use the access matrix.")
    list_display = ("name", "description", "scope_names", "holders")
    search_fields = ("name", "description", "scopes__name")
    filter_horizontal = ("scopes",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Role]:
        """With scopes and the number of holders."""
        rows = super().get_queryset(request).prefetch_related("scopes")
        return rows.annotate(held_by=Count("assignments"))

    @admin.display(description=_("scopes"))
    def scope_names(self, obj: Role) -> str:
        """What it gives."""
        return ", ".join(scope.name for scope in obj.scopes.all()) or "-"

    @admin.display(description=_("holders"), ordering="held_by")
    def holders(self, obj: Role) -> int:
        """How many hold it, expired assignments included."""
        count: int = obj.held_by  # type: ignore[attr-defined]
        return count
