"""Filters with text inputs instead of links."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from django.contrib.admin import ListFilter
from django.http import HttpRequest


class TypedFilter(ListFilter):
    """A filter with text inputs: `inputs` has (name, type, label) of each."""

    template = "admin/typed_filter.html"
    inputs: ClassVar[tuple[tuple[str, str, Any], ...]] = ()

    def __init__(self, request: Any, params: Any, model: Any, page: Any) -> None:
        super().__init__(request, params, model, page)
        for name in self.expected_parameters():
            if name in params:
                self.used_parameters[name] = str(params.pop(name)[-1]).strip()

    def has_output(self) -> bool:
        return True

    def expected_parameters(self) -> list[Any]:
        return [name for name, _kind, _label in self.inputs]

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        """The inputs with their values, and the query string's other parameters."""
        ignored = {*self.expected_parameters(), "p", "e"}
        yield {
            "boxes": [
                (name, kind, label, self.used_parameters.get(name, ""))
                for name, kind, label in self.inputs
            ],
            "kept": [(k, v) for k, v in changelist.params.items() if k not in ignored],
        }

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        for name, value in self.used_parameters.items():
            if value:
                queryset = queryset.filter(**self.condition(name, str(value)))
        return queryset

    def condition(self, name: str, value: str) -> dict[str, Any]:
        """The lookup of one input; by default its name."""
        return {name: value}
