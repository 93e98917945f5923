"""Pages of long lists, the filters that a list declares, and rows by name."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.filters import BaseFilterBackend
from rest_framework.pagination import CursorPagination

DEFAULT_LIMIT, MOST = 50, 200
PAGING = ("cursor", "limit")

Filters = dict[str, tuple[str, serializers.Field[Any, Any, Any, Any]]]
"""Query parameter -> (lookup of the ORM, field that parses the value)."""


class CursorPages(CursorPagination):
    """`limit` rows after an opaque `cursor`, the newest first."""

    page_size = DEFAULT_LIMIT
    max_page_size = MOST
    page_size_query_param = "limit"
    ordering = "-pk"

    def get_page_size(self, request: Any) -> int:
        """DRF would take the default for a limit that it cannot use."""
        field = serializers.IntegerField(min_value=1, max_value=MOST)
        asked = request.query_params.get("limit", DEFAULT_LIMIT)
        try:
            return int(field.run_validation(asked))
        except ValidationError as error:
            raise ValidationError({"limit": error.detail}) from error

    def decode_cursor(self, request: Any) -> Any:
        """Raises ValidationError for a cursor that no page named."""
        try:
            return super().decode_cursor(request)
        except NotFound as error:
            text = "Take the cursor from next or previous of another page."
            raise ValidationError({"cursor": [text]}) from error

    def get_ordering(self, request: Any, queryset: Any, view: Any) -> Any:
        ordering: tuple[str, ...] = view.ordering
        return ordering

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        """The cursor, and the limit with its bounds."""
        bounds = {"type": "integer", "minimum": 1, "maximum": MOST}
        known = {"cursor": {"type": "string"}, "limit": bounds}
        return [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in known.items()
        ]


class DeclaredFilters(BaseFilterBackend):
    """Filters by the view's `filters`; refuses other parameters by name."""

    def filter_queryset(self, request: Any, queryset: Any, view: Any) -> Any:
        if view.action != "list":
            return queryset
        known: Filters = view.filters
        unknown = sorted(set(request.query_params) - {*known, *PAGING})
        if unknown:
            text = f"There is no such filter; there are: {', '.join(known)}."
            raise ValidationError({name: [text] for name in unknown})
        conditions, errors = {}, {}
        for name, (lookup, field) in known.items():
            if name in request.query_params:
                try:
                    conditions[lookup] = field.run_validation(
                        request.query_params[name]
                    )
                except ValidationError as error:
                    errors[name] = error.detail
        if errors:
            raise ValidationError(errors)
        return view.narrow(queryset, conditions)

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        """The filters as parameters of OpenAPI."""
        return [
            {
                "name": name,
                "in": "query",
                "required": False,
                "schema": parameter_schema(field),
            }
            for name, (_lookup, field) in view.filters.items()
        ]


def parameter_schema(field: serializers.Field[Any, Any, Any, Any]) -> dict[str, Any]:
    """The JSON schema of a filter's value."""
    match field:
        case serializers.ChoiceField():
            return {"type": "string", "enum": list(field.choices)}
        case serializers.BooleanField():
            return {"type": "boolean"}
        case serializers.DateTimeField():
            return {"type": "string", "format": "date-time"}
    return {"type": "string", "maxLength": getattr(field, "max_length", None) or 255}


def text(most: int = 255) -> serializers.CharField:
    return serializers.CharField(max_length=most)


class NamesField(serializers.ListField):
    """Rows by their names."""

    child = text()

    def to_representation(self, data: Any) -> list[str]:
        return sorted(str(row) for row in data.all())
