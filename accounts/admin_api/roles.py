"""/api/v1/scopes/, /api/v1/roles/ and /api/v1/assignments/."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.response import Response

from accounts.admin_api.pages import Filters, NamesField, text
from accounts.admin_api.views import AddMixin, DeleteMixin, documented
from accounts.authorization.delegation import (
    objection_to_removing,
    objection_to_role,
)
from accounts.models import Role, RoleAssignment, Scope


class ScopeSerializer(serializers.ModelSerializer[Scope]):
    roles = NamesField(read_only=True, help_text="Names of the roles that grant it.")

    class Meta:
        model = Scope
        fields = ("id", "name", "description", "roles")
        extra_kwargs: dict[str, Any] = {"name": {"validators": []}}


@documented(tags=["scopes"])
class ScopesView(AddMixin, DeleteMixin):
    """Scopes. Only superusers change them: each affects all roles that grant it."""

    model = Scope
    serializer_class = ScopeSerializer
    filters: Filters = {
        "name": ("name", text()),
        "role": ("roles__name", text(100)),
    }


class RoleSerializer(serializers.ModelSerializer[Role]):
    scopes = NamesField(required=False, help_text="Names of the scopes.")

    class Meta:
        model = Role
        fields = ("id", "name", "description", "scopes", "networks")
        extra_kwargs: dict[str, Any] = {"name": {"validators": []}}


@documented(tags=["roles"])
class RolesView(AddMixin, DeleteMixin):
    """Roles with their scopes."""

    model = Role
    serializer_class = RoleSerializer
    filters: Filters = {
        "name": ("name", text(100)),
        "scope": ("scopes__name", text()),
    }

    def objection(self, row: Role) -> str:
        actor: Any = self.request.user
        return objection_to_role(actor, row)


class AssignmentSerializer(serializers.ModelSerializer[RoleAssignment]):
    user = serializers.CharField(max_length=150, help_text="The username.")
    role = serializers.CharField(max_length=100, help_text="The name of the role.")
    granted_by = serializers.CharField(read_only=True, allow_null=True)
    expired = serializers.BooleanField(read_only=True)

    class Meta:
        model = RoleAssignment
        fields = (
            "id",
            "user",
            "role",
            "expires_at",
            "reason",
            "granted_by",
            "granted_at",
            "expired",
        )
        read_only_fields = ("granted_at",)
        validators: tuple[Any, ...] = ()


@documented(tags=["assignments"])
class AssignmentsView(AddMixin, DeleteMixin):
    """Roles of people; `expires_at` null means no end."""

    model = RoleAssignment
    serializer_class = AssignmentSerializer
    filters: Filters = {
        "user": ("user__username", text(150)),
        "role": ("role__name", text(100)),
        "expires_before": ("expires_at__lt", serializers.DateTimeField()),
        "expired": ("expired", serializers.BooleanField()),
    }

    def narrow(self, rows: Any, conditions: dict[str, Any]) -> Any:
        """Whether it has expired follows from the end."""
        expired = conditions.pop("expired", None)
        rows = rows.filter(**conditions)
        if expired is None:
            return rows
        return (
            rows.filter(expires_at__lte=timezone.now()) if expired else rows.unexpired()
        )

    def objection(self, row: RoleAssignment) -> str:
        actor: Any = self.request.user
        return objection_to_removing(actor, row.user, row.role)

    @documented(request=None)
    @action(methods=["post"], detail=True)
    def end(self, request: Any, pk: int) -> Response:
        """End it now; the row stays as history."""
        return self.act("end_now")
