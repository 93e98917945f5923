"""Narrowed schemas: what JSON Schema can say, and never more than the rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from accounts.tokens.principal import Principal
from mcp_bridge.access.argument_rules import judge_arguments
from mcp_bridge.access.catalogue import Condition, Rule
from mcp_bridge.access.decision import granting_roles
from mcp_bridge.access.narrowed_schemas import narrowed_schema
from tests.support.mcp_in_process import caller
from tests.support.properties import ON_BUSY_MACHINES

pytestmark = pytest.mark.once
SCHEMA = {
    "type": "object",
    "properties": {
        "amount": {"type": "number", "maximum": 1000, "minimum": 1},
        "currency": {"type": "string", "enum": ["EUR", "USD", "CHF"]},
        "note": {"type": "string"},
        "path": {"type": "string", "pattern": "^/"},
        "order": {"$ref": "#/$defs/Order", "title": "Its order"},
    },
    "required": ["note"],
    "$defs": {"Order": {"type": "object", "properties": {"total": {"type": "number"}}}},
}


def who(*roles: str) -> Principal:
    return replace(caller("alice"), grants={"Use": roles}, roles=roles)


def narrowed(*conditions: Condition, roles: tuple[str, ...] = ("R",)) -> Any:
    rule = Rule("tool", "t", True, False, frozenset({"Use"}), conditions=conditions)
    return narrowed_schema(SCHEMA, who(*roles), rule)


@pytest.mark.parametrize(
    ("argument", "operator", "value", "keywords"),
    [
        ("amount", "at_most", 5, {"maximum": 5}),
        ("amount", "at_most", 5000, {"maximum": 1000}),
        ("amount", "at_least", 5, {"minimum": 5}),
        ("amount", "at_least", 0, {"minimum": 1}),
        ("note", "at_most", 5, {"maximum": 5}),
        ("note", "one_of", ["a", 1], {"enum": ["a", 1]}),
        ("currency", "one_of", ["EUR", "GBP"], {"enum": ["EUR"]}),
        ("currency", "one_of", ["GBP"], {"enum": ["EUR", "USD", "CHF"]}),
        ("note", "matches", "a|b", {"pattern": "^(?:a|b)$"}),
        ("note", "matches", "(?:a)[b-c]\\.", {"pattern": "^(?:(?:a)[b-c]\\.)$"}),
        ("note", "matches", "(?i)a", {}),
        ("note", "matches", "[[:alpha:]]", {}),
        ("note", "matches", "\\p{L}", {}),
        ("path", "matches", "a", {"pattern": "^/"}),
        ("note", "starts_with", "/a.b", {"pattern": r"^\/a\.b"}),
        ("path", "starts_with", "/a", {"pattern": "^/"}),
    ],
)
def test_a_limit_becomes_a_keyword(
    argument: str, operator: str, value: Any, keywords: dict[str, Any]
) -> None:
    found = narrowed(Condition("", f"/{argument}", operator, value))
    before: Any = SCHEMA["properties"]
    assert found["properties"][argument] == before[argument] | keywords
    assert set(found["required"]) == {"note", argument}
    Draft202012Validator.check_schema(found)


def test_without_limits_the_schema_is_the_same_object() -> None:
    assert narrowed() is SCHEMA
    assert narrowed(Condition("Other", "/amount", "at_most", 5)) is SCHEMA
    assert narrowed(Condition("", "/unknown", "at_most", 5)) is SCHEMA
    assert narrowed(Condition("", "/amount", "at_most", "5")) is SCHEMA
    assert narrowed(Condition("R", "/amount", "at_most", 5), roles=()) is SCHEMA


def test_a_forbidden_argument_disappears() -> None:
    found = narrowed(Condition("", "/note", "absent"))
    assert "note" not in found["properties"] and found["required"] == []
    found = narrowed(Condition("", "/order/total", "absent"))
    assert found["properties"]["order"]["properties"] == {}
    assert found["required"] == ["note"]


def test_a_member_of_a_referenced_object_is_narrowed_in_place() -> None:
    """Other arguments may refer to the same definition."""
    found = narrowed(Condition("R", "/order/total", "at_most", 5))
    order = found["properties"]["order"]
    assert order["properties"]["total"] == {"type": "number", "maximum": 5}
    assert order["required"] == ["total"] and order["title"] == "Its order"
    assert found["$defs"] == SCHEMA["$defs"]
    assert set(found["required"]) == {"note", "order"}


def test_an_argument_that_is_a_reference_keeps_its_own_limit() -> None:
    limit = Condition("R", "/a", "at_most", 5)
    rule = Rule("tool", "t", True, False, frozenset({"Use"}), conditions=(limit,))
    schema = {
        "properties": {"a": {"$ref": "#/$defs/Few"}},
        "$defs": {"Few": {"type": "number", "maximum": 3}},
    }
    found = narrowed_schema(schema, who("R"), rule)
    assert found["properties"]["a"] == {"type": "number", "maximum": 3}


@pytest.mark.parametrize(
    "node",
    [
        *(True, {}, {"properties": 5}),
        *({"$ref": ref} for ref in ("#/none", "#/none/deeper", "https://a")),
    ],
)
def test_a_schema_that_says_nothing_is_kept(node: Any) -> None:
    rule = Rule("tool", "t", True, False, frozenset({"Use"}), conditions=(NESTED,))
    schema = {"properties": {"a": node}}
    found = narrowed_schema(schema, who("R"), rule)
    assert found["properties"]["a"] == node


NESTED = Condition("", "/a/b", "at_most", 5)


@pytest.mark.parametrize(
    ("operator", "values", "keywords"),
    [
        ("at_most", (5, 7), {"maximum": 7}),
        ("at_least", (5, 7), {"minimum": 5}),
        ("one_of", (["EUR"], ["USD", "EUR"]), {"enum": ["EUR", "USD"]}),
        ("starts_with", ("a", "a"), {"pattern": "^a"}),
        ("starts_with", ("a", "b"), {}),
        ("at_most", (5, 5, 7), {"maximum": 7}),
        ("at_most", (7, 5, 5), {"maximum": 7}),
        ("at_least", (5, 7, 5), {"minimum": 5}),
        ("at_least", (7, 7, 5), {"minimum": 5}),
        ("one_of", (["EUR"], ["EUR"], ["USD"]), {"enum": ["EUR", "USD"]}),
        ("starts_with", ("a", "a", "a"), {"pattern": "^a"}),
        ("starts_with", ("a", "a", "b"), {}),
        ("matches", ("a", "b", "a"), {}),
    ],
)
def test_several_roles_get_the_widest_limit(
    operator: str, values: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    name = {"at_most": "amount", "at_least": "amount", "one_of": "currency"}
    argument = name.get(operator, "note")
    conditions = [
        Condition(role, f"/{argument}", operator, value)
        for role, value in zip("ABC", values, strict=False)
    ]
    found = narrowed(*conditions, roles=tuple("ABC"[: len(values)]))
    before: Any = SCHEMA["properties"]
    assert found["properties"][argument] == before[argument] | keywords


CONDITIONS = st.builds(
    Condition,
    st.sampled_from(["", "A", "B"]),
    st.sampled_from(["/amount", "/note"]),
    st.sampled_from(["at_most", "at_least"]),
    st.integers(1, 9),
) | st.builds(
    Condition,
    st.sampled_from(["", "A", "B"]),
    st.sampled_from(["/note", "/amount"]),
    st.just("absent"),
)


@ON_BUSY_MACHINES
@given(
    st.lists(CONDITIONS, max_size=4),
    st.sampled_from([("A",), ("A", "B")]),
    st.dictionaries(st.sampled_from(["amount", "note"]), st.integers(0, 10)),
)
def test_a_narrowed_schema_never_forbids_what_the_rules_allow(
    conditions: list[Condition], roles: tuple[str, ...], arguments: dict[str, int]
) -> None:
    rule = Rule(
        "tool", "t", True, False, frozenset({"Use"}), conditions=tuple(conditions)
    )
    schema: dict[str, Any] = {"properties": {"amount": {}, "note": {}}}
    found = narrowed_schema(schema, who(*roles), rule)
    if judge_arguments(
        conditions, granting_roles(who(*roles), rule), arguments
    ).allowed:
        assert Draft202012Validator(found).is_valid(arguments)
