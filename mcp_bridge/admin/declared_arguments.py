"""The arguments that a definition declares, to check a new argument rule against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.utils.translation import gettext as _

from mcp_bridge.access.argument_rules import members, same
from mcp_bridge.access.narrowed_schemas import referenced
from mcp_bridge.models import ArgumentOperator, Primitive, PrimitiveKind

Schema = Mapping[str, Any]

COMPARED: dict[str, frozenset[str]] = {
    ArgumentOperator.AT_MOST: frozenset({"number", "integer"}),
    ArgumentOperator.AT_LEAST: frozenset({"number", "integer"}),
    ArgumentOperator.MATCHES: frozenset({"string"}),
    ArgumentOperator.STARTS_WITH: frozenset({"string"}),
    ArgumentOperator.ONE_OF: frozenset(
        {"string", "number", "integer", "boolean", "null"}
    ),
}
"""Operator -> types of JSON Schema that it compares."""


def input_schema(primitive: Primitive) -> Schema:
    """The schema of the arguments that clients see; empty if none is known."""
    shown = primitive.accepted or primitive.offered or {}
    if primitive.kind == PrimitiveKind.PROMPT:
        listed = shown.get("arguments") or []
        return {"properties": {one["name"]: {"type": "string"} for one in listed}}
    schema = shown.get("inputSchema")
    return schema if isinstance(schema, Mapping) else {}


def declared(schema: Schema, pointer: str) -> Schema | None:
    """The schema of one argument: None if it is not declared, empty if unknown."""
    node: Schema = referenced(schema, schema)
    for name in members(pointer):
        properties = node.get("properties")
        if not isinstance(properties, Mapping):
            return {}
        if name not in properties:
            return None if is_closed(node) else {}
        node = referenced(schema, properties[name])
    return node


def is_closed(node: Schema) -> bool:
    """Whether an object lists all of its members.

    Without `additionalProperties` others are valid, too, but no server reads them.
    """
    open_ended = ("patternProperties", "allOf", "anyOf", "oneOf", "$ref", "if")
    extra = bool(node.get("additionalProperties"))
    return not extra and not any(name in node for name in open_ended)


def types_of(schema: Schema, node: Schema) -> frozenset[str]:
    """The JSON types that an argument may have; empty if unknown."""
    found: set[str] = set()
    for part in alternatives(schema, node):
        named = part.get("type")
        listed = [named] if isinstance(named, str) else named
        if not isinstance(listed, list):
            return frozenset()
        found.update(map(str, listed))
    return frozenset(found)


def alternatives(schema: Schema, node: Schema) -> Iterator[Schema]:
    """The node, or each of its `anyOf` or `oneOf`."""
    for key in ("anyOf", "oneOf"):
        if isinstance(node.get(key), list):
            yield from (referenced(schema, part) for part in node[key])
            return
    yield node


def names_of(schema: Schema, longest: int = 10) -> str:
    """The first arguments as pointers, for a message."""
    properties = schema.get("properties")
    names = [*properties] if isinstance(properties, Mapping) else []
    escaped = [name.replace("~", "~0").replace("/", "~1") for name in names]
    more = " ..." if len(names) > longest else ""
    return ", ".join(f"/{name}" for name in escaped[:longest]) + more


def misfit(schema: Schema, pointer: str, operator: str, value: Any) -> tuple[str, str]:
    """(field, why) of a rule that no call of this schema can meet; empty if none."""
    node = declared(schema, pointer)
    if operator == ArgumentOperator.ABSENT:
        return "", ""
    if node is None:
        names = names_of(schema)
        text = _("There is no argument %(pointer)s. There are: %(names)s.")
        if not names:
            text = _("It has no arguments.")
        return "pointer", text % {"pointer": pointer, "names": names}
    types = types_of(schema, node)
    if types and not types & COMPARED[operator]:
        text = _("%(pointer)s is of the type %(types)s. Choose another condition.")
        words = {"pointer": pointer, "types": ", ".join(sorted(types))}
        return "operator", text % words
    if operator == ArgumentOperator.ONE_OF:
        wrong = impossible(value, types, node.get("enum"))
        if wrong:
            text = _("%(pointer)s is never one of these: %(values)s.")
            return "value", text % {"pointer": pointer, "values": wrong}
    return "", ""


def impossible(values: Iterable[Any], types: frozenset[str], listed: Any) -> str:
    """The values that an argument of these types cannot have, for a message."""
    wrong = [
        value
        for value in values
        if (types and not types_of_value(value) & types)
        or (isinstance(listed, list) and not any(same(value, one) for one in listed))
    ]
    return ", ".join(map(repr, wrong))


def types_of_value(value: Any) -> frozenset[str]:
    """The types of JSON Schema that a scalar has."""
    if value is None:
        return frozenset({"null"})
    if isinstance(value, bool):
        return frozenset({"boolean"})
    if isinstance(value, str):
        return frozenset({"string"})
    whole = float(value).is_integer() if abs(value) < 1e300 else True
    return frozenset({"number", "integer"} if whole else {"number"})
