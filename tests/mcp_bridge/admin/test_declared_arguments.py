"""The schema of arguments that clients see, and of each argument."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_bridge.admin.declared_arguments import declared, input_schema
from mcp_bridge.models import Primitive

TEXT = {"type": "string"}


def shown(name: str) -> dict[str, Any]:
    return {"inputSchema": {"properties": {name: TEXT}}}


@pytest.mark.parametrize(
    ("accepted", "offered", "found"),
    [
        (shown("old"), shown("new"), {"properties": {"old": TEXT}}),
        (None, shown("new"), {"properties": {"new": TEXT}}),
        (None, None, {}),
        ({"inputSchema": True}, None, {}),
    ],
)
def test_clients_see_the_accepted_schema(
    accepted: Any, offered: Any, found: dict[str, Any]
) -> None:
    tool = Primitive(kind="tool", accepted=accepted, offered=offered)
    assert input_schema(tool) == found
    named = {"arguments": [{"name": "who"}], **(accepted or {})}
    prompt = Primitive(kind="prompt", accepted=named, offered=offered)
    assert input_schema(prompt) == {"properties": {"who": TEXT}}


CLOSED = {"properties": {"a": TEXT}, "additionalProperties": False}
OPEN = {
    "properties": {"a": TEXT, "deep": CLOSED},
    "additionalProperties": True,
}
PLAIN = {"properties": {"a": TEXT}}


@pytest.mark.parametrize(
    ("schema", "pointer", "found"),
    [
        (OPEN, "/a", TEXT),
        (OPEN, "/b", {}),
        (CLOSED, "/b", None),
        (PLAIN, "/b", None),  # No server reads it.
        (OPEN, "/deep/a", TEXT),
        (OPEN, "/deep/b", None),
        (OPEN, "/a/b", {}),
        ({}, "/a", {}),
        ({"$ref": "#/$defs/x", "$defs": {"x": CLOSED}}, "/a", TEXT),
        ({"$ref": "#/$defs/x", "$defs": {"x": CLOSED}}, "/b", None),
    ],
)
def test_an_argument_is_declared_unknown_or_missing(
    schema: dict[str, Any], pointer: str, found: Any
) -> None:
    assert declared(schema, pointer) == found
