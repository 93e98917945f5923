"""A tool's input schema as the fields of an HTML form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]

INPUTS = {"string": "text", "integer": "number", "number": "number"}
"""Type of JSON Schema -> type of an <input>."""
MAX_FIELDS = 100


@dataclass(frozen=True, slots=True)
class SchemaField:
    """One argument; `kind` says how the page reads its value.

    `text`, `number`, `boolean` and `choice` have an input; every other one is JSON.
    """

    name: str
    kind: str
    required: bool
    description: str = ""
    choices: tuple[str, ...] = ()
    """JSON of each allowed value."""
    initial: str = ""
    """The default as JSON; empty if there is none."""
    step: str = "any"
    """`1` for whole numbers."""
    header: str = ""
    """Name of the header that repeats the value (`x-mcp-header`); empty for none."""

    @property
    def id(self) -> str:
        return f"argument-{self.name}"


def schema_fields(schema: Json) -> list[SchemaField]:
    """The fields of an object schema, required ones first; never raises."""
    properties = schema.get("properties")
    required = schema.get("required")
    if not isinstance(properties, dict):
        return []
    names = required if isinstance(required, list) else []
    fields = [
        schema_field(name, one if isinstance(one, dict) else {}, name in names)
        for name, one in list(properties.items())[:MAX_FIELDS]
    ]
    return sorted(fields, key=lambda field: not field.required)


def schema_field(name: str, schema: Json, required: bool) -> SchemaField:
    """The field of one argument."""
    given: dict[str, Any] = {
        "header": str(schema.get("x-mcp-header") or ""),
        "description": str(schema.get("description") or ""),
        "initial": json.dumps(schema["default"]) if "default" in schema else "",
    }
    choices = schema.get("enum")
    if isinstance(choices, list):
        texts = tuple(json.dumps(choice, ensure_ascii=False) for choice in choices)
        return SchemaField(name, "choice", required, choices=texts, **given)
    kind = plain_type(schema)
    if kind == "boolean":
        return SchemaField(name, "boolean", required, **given)
    step = "1" if kind == "integer" else "any"
    return SchemaField(name, INPUTS.get(kind, "json"), required, step=step, **given)


def plain_type(schema: Json) -> str:
    """The type that a value has, `null` aside; empty if it may have several."""
    kinds = schema.get("type")
    if kinds is None and isinstance(schema.get("anyOf"), list):
        kinds = [one.get("type") for one in schema["anyOf"] if isinstance(one, dict)]
    found = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(found, list):
        return ""
    named = [kind for kind in found if kind != "null"]
    return str(named[0]) if len(named) == 1 else ""
