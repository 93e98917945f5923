"""The fields of a form for a tool's arguments."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_bridge.portal.tool_form import MAX_FIELDS, SchemaField, schema_fields

pytestmark = pytest.mark.once


def fields(required: Any = (), **properties: Any) -> list[SchemaField]:
    return schema_fields({"properties": properties, "required": list(required)})


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "string"}, "text"),
        ({"type": "integer"}, "number"),
        ({"type": "number"}, "number"),
        ({"type": "boolean"}, "boolean"),
        ({"type": ["string", "null"]}, "text"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "number"),
        ({"type": ["string", "integer"]}, "json"),
        ({"anyOf": [{"type": "string"}, {"$ref": "#/x"}]}, "json"),
        ({"type": "array"}, "json"),
        ({"type": "object"}, "json"),
        ({"enum": ["a", 2]}, "choice"),
        ({}, "json"),
        ("no schema", "json"),
        ({"type": {"odd": 1}}, "json"),
        ({"anyOf": "odd"}, "json"),
    ],
)
def test_the_type_decides_the_kind_of_field(schema: Any, kind: str) -> None:
    (field,) = fields(x=schema)
    assert (field.name, field.kind, field.required) == ("x", kind, False)


def test_required_fields_come_first_in_their_order() -> None:
    found = fields(["c", "b"], a={}, b={}, c={}, d={})
    assert [(f.name, f.required) for f in found] == [
        ("b", True),
        ("c", True),
        ("a", False),
        ("d", False),
    ]


def test_a_field_has_what_the_schema_says() -> None:
    schema = {"type": "integer", "description": "How many.", "default": 0}
    (field,) = fields(x=schema)
    assert (field.description, field.initial, field.step) == ("How many.", "0", "1")
    (field,) = fields(x={"enum": ["é", None], "default": "é"})
    assert field.choices == ('"é"', "null") and field.initial == '"\\u00e9"'
    assert fields(x={"type": "number"})[0].step == "any"
    assert fields(x={"x-mcp-header": "Region"})[0].header == "Region"


@pytest.mark.parametrize(
    "schema",
    [{"type": "string"}, {"type": "boolean"}, {"enum": [True]}, {"type": "array"}],
    ids=["text", "boolean", "choice", "json"],
)
def test_every_kind_of_field_has_its_texts(schema: dict[str, Any]) -> None:
    told = {"description": "Which.", "default": True, "x-mcp-header": "Region"}
    (field,) = fields(["x"], x={**schema, **told})
    found = field.description, field.initial, field.header, field.required, field.id
    assert found == ("Which.", "true", "Region", True, "argument-x")


@pytest.mark.parametrize(
    ("default", "initial"), [(None, "null"), (False, "false"), ("", '""'), ([], "[]")]
)
def test_a_default_may_be_an_empty_value(default: Any, initial: str) -> None:
    assert fields(x={"default": default})[0].initial == initial
    (bare,) = fields(x={})
    assert (bare.initial, bare.description, bare.header) == ("", "", "")


@pytest.mark.parametrize(
    "schema", [{}, {"properties": None}, {"properties": []}, {"required": 1}]
)
def test_a_schema_without_properties_has_no_fields(schema: Any) -> None:
    assert schema_fields(schema) == []


def test_the_number_of_fields_is_bounded() -> None:
    many: dict[str, Any] = {f"x{number}": {} for number in range(MAX_FIELDS + 1)}
    assert len(fields(**many)) == MAX_FIELDS
    assert (
        schema_fields({"properties": {"a": {}}, "required": "a"})[0].required is False
    )
