"""/api/docs/: the administration API as a page, from the OpenAPI document."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from accounts.http.responses import ADMIN_API_PATH
from config.views.openapi import Document, document


@dataclass(frozen=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    text: str
    parameters: tuple[str, ...]
    fields: tuple[tuple[str, str, str], ...]
    """(name, type, help text) of the body."""


@cache
def sections() -> dict[str, list[Operation]]:
    """Tag -> its operations, in the document's order."""
    known, found = document(), defaultdict(list)
    for path, methods in known["paths"].items():
        if path.startswith(ADMIN_API_PATH):
            for method, one in methods.items():
                found[one["tags"][0]].append(operation_of(known, method, path, one))
    return dict(found)


def operation_of(known: Document, method: str, path: str, one: Document) -> Operation:
    queries = [p["name"] for p in one.get("parameters", ()) if p["in"] == "query"]
    return Operation(
        method.upper(),
        path,
        one.get("description", ""),
        tuple(queries),
        tuple(body_fields(known, one)),
    )


def body_fields(known: Document, one: Document) -> list[tuple[str, str, str]]:
    """The fields that a request may send."""
    content = one.get("requestBody", {}).get("content", {})
    reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
    schema = known["components"]["schemas"].get(reference.rpartition("/")[2], {})
    return [
        (name, type_of(field), field.get("description", ""))
        for name, field in schema.get("properties", {}).items()
        if not field.get("readOnly")
    ]


def type_of(field: Document) -> str:
    """The type in one or two words."""
    kind: Any = field.get("type", "choice")
    words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    return f"{words} ({field['format']})" if "format" in field else words


@require_safe
def api_docs(request: HttpRequest) -> HttpResponse:
    """GET /api/docs/, in English as the document is."""
    return render(request, "api_docs.html", {"sections": sections().items()})
