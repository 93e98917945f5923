"""/api/v1/access/: the access matrix. Changes are reviewed first, as in the admin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import Http404
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.response import Response

from accounts.admin_api.pages import Filters, text
from accounts.admin_api.problems import Conflict
from accounts.admin_api.views import NOT_VIEWED, ListView, documented
from accounts.authorization.delegation import NotAllowed
from accounts.models import Role
from mcp_bridge.access.matrix.cells import Cell, CellState, Matrix, MatrixChange
from mcp_bridge.access.matrix.replacement import (
    MatrixOutcome,
    count_users,
    outcomes,
)
from mcp_bridge.access.matrix.saving import (
    StaleMatrix,
    objection_to_changes,
    objection_to_replacing,
    save_matrix,
)
from mcp_bridge.models import DefinitionState, Primitive, PrimitiveKind

VIEW_ROLES, CHANGE_ROLES = "accounts.view_role", "accounts.change_role"
MOST_CHANGES = 500
STALE = "Someone changed roles or tools after the review. Review the changes again."
Wanted = list[dict[str, Any]]
Changes = list[MatrixChange]
Codes = list[str]
CLOSED = "It does not require its own scope. Add %s to its required scopes first."


class CellSerializer(serializers.Serializer[Any]):
    role = serializers.CharField(source="role.name")
    allowed = serializers.BooleanField(source="cell.ticked")
    state = serializers.ChoiceField(
        source="cell.state",
        choices=[state.value for state in CellState],
        help_text="own: by its own scope; shared: by others; both; none; closed: its "
        "own scope is not required, so no change here can give it.",
    )
    through = serializers.ListField(
        source="cell.through",
        child=serializers.CharField(),
        help_text="Shared scopes that allow it.",
    )


class RoleQuery(serializers.Serializer[Any]):
    """The parameter of one row."""

    role = serializers.CharField(
        max_length=100, required=False, help_text="Show this role only."
    )


class AccessSerializer(serializers.Serializer[Any]):
    """A tool, resource or prompt, and what each role may do with it."""

    id = serializers.IntegerField(source="primitive.pk")
    kind = serializers.ChoiceField(
        source="primitive.kind", choices=PrimitiveKind.choices
    )
    name = serializers.CharField(source="primitive.name")
    obstacle = serializers.CharField(
        source="primitive.obstacle", help_text="Why nobody can use it now, or empty."
    )
    roles = CellSerializer(many=True, source="cells")


class ChangeSerializer(serializers.Serializer[Any]):
    role = serializers.CharField(max_length=100, help_text="The name of the role.")
    tool = serializers.IntegerField(
        min_value=1, max_value=2**63 - 1, help_text="The id from tools/."
    )
    allow = serializers.BooleanField()


class MatrixReviewSerializer(serializers.Serializer[Any]):
    changes: Any = serializers.ListSerializer(
        child=ChangeSerializer(), min_length=1, max_length=MOST_CHANGES
    )


class SaveSerializer(MatrixReviewSerializer):
    version = serializers.CharField(max_length=64, help_text="From the review.")


class OutcomeSerializer(serializers.Serializer[MatrixOutcome]):
    """What the changes of one tool lead to."""

    tool = serializers.IntegerField(source="primitive.pk")
    name = serializers.CharField(source="primitive.name")
    required_scopes = serializers.SerializerMethodField(
        help_text="The scopes that it requires afterwards."
    )
    dropped_scopes = serializers.SerializerMethodField(
        help_text="Shared scopes that it stops requiring."
    )
    kept_for = serializers.SerializerMethodField(
        help_text="Roles that get its own scope, so that they keep it."
    )
    gaining = serializers.IntegerField(help_text="Active people who gain it.")
    losing = serializers.IntegerField(help_text="Active people who lose it.")

    def get_required_scopes(self, one: MatrixOutcome) -> list[str]:
        return sorted(one.required_after)

    def get_dropped_scopes(self, one: MatrixOutcome) -> list[str]:
        return sorted(one.dropped)

    def get_kept_for(self, one: MatrixOutcome) -> list[str]:
        return [role.name for role in one.keepers]


class MadeSerializer(serializers.Serializer[MatrixChange]):
    role = serializers.CharField(source="role.name")
    tool = serializers.IntegerField(source="primitive.pk")
    allow = serializers.BooleanField(source="give")
    accepts = serializers.BooleanField(
        help_text="Whether this accepts a definition that is held."
    )
    obstacle = serializers.CharField(
        source="unusable", help_text="Why nobody can use it yet, or empty."
    )


class SavedSerializer(serializers.Serializer[Any]):
    """What was changed; empty if all was so already."""

    changes = MadeSerializer(many=True)


class ReviewedSerializer(SavedSerializer):
    """What would change, and the version to send with the changes."""

    version = serializers.CharField()
    outcomes = OutcomeSerializer(many=True)
    objection = serializers.CharField(
        help_text="Why you cannot save these changes; empty if you can."
    )


@documented(tags=["access"])
class AccessMatrixView(ListView):
    """Roles x tools, as the access matrix of the admin shows them."""

    model = Primitive
    serializer_class = AccessSerializer
    filters: Filters = {
        "kind": ("kind", serializers.ChoiceField(choices=PrimitiveKind.choices)),
        "name": ("name", text()),
        "state": ("state", serializers.ChoiceField(choices=DefinitionState.choices)),
        "upstream": ("upstream__name", text()),
        "role": ("role", text(100)),
    }
    role = ""
    """The only role to show; empty for all."""

    def get_queryset(self) -> Any:
        rows = super().get_queryset()
        fake = getattr(self, "swagger_fake_view", False)
        if not fake and not self.acting.user.has_perm(VIEW_ROLES):
            raise Http404(NOT_VIEWED)
        return rows

    def narrow(self, rows: Any, conditions: dict[str, Any]) -> Any:
        """A role selects a column. Raises ValidationError."""
        self.select_role(conditions.pop("role", ""))
        return rows.filter(**conditions)

    def select_role(self, name: str) -> None:
        """Show only this role; empty means all. Raises ValidationError."""
        if name and not Role.objects.filter(name=name).exists():
            raise ValidationError({"role": f"There is no role {name}."})
        self.role = name

    def list(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        """The cells of the tools of a page; `role` shows one role only."""
        rows = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        shown = AccessSerializer(self.with_cells(rows or []), many=True)
        return self.get_paginated_response(shown.data)

    @documented(parameters=[RoleQuery])
    def retrieve(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        """The cells of one tool; `role` shows one role only."""
        query = RoleQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        self.select_role(query.validated_data.get("role", ""))
        (row,) = self.with_cells([self.get_object()])
        return self.shown(row)

    def with_cells(self, rows: Any) -> Sequence[dict[str, Any]]:
        """What AccessSerializer shows of each row."""
        roles = Role.objects.filter(**({"name": self.role} if self.role else {}))
        matrix = Matrix(rows, roles)
        return [
            {"primitive": row, "cells": shown_cells(matrix, row)}
            for row in matrix.primitives
        ]

    @documented(request=MatrixReviewSerializer, responses=ReviewedSerializer)
    @action(methods=["post"], detail=False)
    def review(self, request: Any) -> Response:
        """What these changes would lead to. Nothing is saved."""
        given = self.asked(MatrixReviewSerializer)
        matrix, codes = self.matrix(given["changes"])
        changes = matrix.parse_changes(codes)
        found = outcomes(matrix, changes)
        count_users(found)
        actor = self.acting.user
        objection = objection_to_changes(actor, changes)
        shown = {
            "version": matrix.version,
            "changes": changes,
            "outcomes": found,
            "objection": objection or objection_to_replacing(actor, found),
        }
        return Response(ReviewedSerializer(shown).data)

    @documented(request=SaveSerializer, responses={200: SavedSerializer})
    def create(self, request: Any) -> Response:
        """Make the changes that were reviewed, all or none."""
        given = self.asked(SaveSerializer)
        matrix, codes = self.matrix(given["changes"])
        changes: Changes = []
        # Repeating what is done already changes nothing, whatever the version.
        if matrix.parse_changes(codes):
            changes = self.saved(matrix, given["version"], codes)
        return Response(SavedSerializer({"changes": changes}).data)

    def saved(self, matrix: Matrix, version: str, codes: Codes) -> Changes:
        """Raises Conflict, NotAllowed."""
        actor = self.acting.user
        try:
            return save_matrix(matrix, version, codes, actor=actor, request=self.acting)
        except StaleMatrix as error:
            raise Conflict(STALE) from error

    def matrix(self, wanted: Wanted) -> tuple[Matrix, Codes]:
        """The rows that the changes name, and the changes as the admin's form has them.

        Raises Http404, NotAllowed, ValidationError.
        """
        rows = self.get_queryset()
        if not self.acting.user.has_perm(CHANGE_ROLES):
            raise NotAllowed("You may view the access matrix, but not change it.")
        roles = Role.objects.filter(name__in={one["role"] for one in wanted})
        tools = rows.filter(pk__in={one["tool"] for one in wanted})
        matrix = Matrix(tools.order_by("pk"), roles.order_by("pk"))
        return matrix, codes_of(matrix, wanted)


def shown_cells(matrix: Matrix, primitive: Primitive) -> list[dict[str, Role | Cell]]:
    cells = zip(matrix.roles, matrix.row(primitive), strict=True)
    return [{"role": role, "cell": cell} for role, cell in cells]


def codes_of(matrix: Matrix, wanted: Wanted) -> Codes:
    """Raises ValidationError that names each change that is not possible."""
    roles = {role.name: role for role in matrix.roles}
    tools = {primitive.pk: primitive for primitive in matrix.primitives}
    codes: dict[tuple[str, int], str] = {}
    errors: dict[str, Any] = {}
    for number, one in enumerate(wanted):
        key = one["role"], one["tool"]
        role, tool = roles.get(one["role"]), tools.get(one["tool"])
        if role is None:
            errors[str(number)] = {"role": f"There is no role {one['role']}."}
        elif tool is None:
            errors[str(number)] = {"tool": f"There is no tool {one['tool']}."}
        elif key in codes:
            errors[str(number)] = {"tool": "This role and tool are in the list twice."}
        elif one["allow"] and not matrix.cell(tool, role).tickable:
            errors[str(number)] = {"tool": CLOSED % tool.own_scope}
        else:
            codes[key] = MatrixChange(role, tool, one["allow"]).code
    if errors:
        raise ValidationError({"changes": errors})
    return list(codes.values())
