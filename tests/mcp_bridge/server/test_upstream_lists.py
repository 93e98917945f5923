"""Lists show upstream primitives as they were accepted, by the caller's rights."""

from __future__ import annotations

from typing import Any

import pytest
from mcp_types import Prompt, Resource, ResourceTemplate, Tool

from mcp_bridge.access.catalogue import Catalogue, Condition, Rule
from mcp_bridge.access.context import Call, call_var
from mcp_bridge.access.decision import decide
from mcp_bridge.access.messages import Message
from mcp_bridge.server import upstream_lists
from mcp_bridge.server.upstream_lists import upstream_items
from tests.support.mcp_in_process import caller

TOOL = {"name": "git__add", "inputSchema": {"type": "object"}, "title": "Add"}


def rule(kind: str, name: str, definition: Any, **values: Any) -> Rule:
    scopes = frozenset({f"{kind}:{name}"})
    return Rule(kind, name, True, False, scopes, definition=definition, **values)


def listed(
    model: Any, *rules: Rule, grants: tuple[str, ...] | None = None
) -> list[Any]:
    """What the caller sees; by default every scope is granted."""
    scopes = grants if grants is not None else [min(one.required) for one in rules]
    message, catalogue = Message("tools/list"), Catalogue(rules)
    principal = caller("alice", *scopes)
    call = Call(principal, message, catalogue, decide(principal, message, catalogue))
    token = call_var.set(call)
    try:
        return upstream_items(model)
    finally:
        call_var.reset(token)


@pytest.mark.parametrize(
    ("model", "kind", "name", "definition"),
    [
        (Tool, "tool", "git__add", TOOL),
        (Resource, "resource", "a://b", {"uri": "a://b", "name": "b"}),
        (
            ResourceTemplate,
            "resource_template",
            "a://{b}",
            {"uriTemplate": "a://{b}", "name": "b"},
        ),
        (Prompt, "prompt", "git__hi", {"name": "git__hi"}),
    ],
)
def test_each_kind_is_listed_as_accepted(
    model: Any, kind: str, name: str, definition: dict[str, Any]
) -> None:
    (item,) = listed(model, rule(kind, name, definition))
    shown = item.model_dump(by_alias=True, mode="json", exclude_none=True)
    assert {key: shown[key] for key in definition} == definition


def test_what_no_role_grants_is_not_listed() -> None:
    assert listed(Tool, rule("tool", "git__add", TOOL), grants=()) == []


@pytest.mark.parametrize("blocked", ["held", "gone", "rejected", "upstream"])
def test_what_is_not_served_is_not_listed(blocked: str) -> None:
    assert listed(Tool, rule("tool", "git__add", TOOL, blocked=blocked)) == []


def test_the_model_is_built_once_for_a_definition() -> None:
    one = rule("tool", "git__add", TOOL)
    assert listed(Tool, one)[0] is listed(Tool, one)[0]
    changed = rule("tool", "git__add", {**TOOL, "title": "Plus"})
    assert listed(Tool, changed)[0].title == "Plus"


def test_one_invalid_definition_does_not_empty_the_list() -> None:
    bad = rule("tool", "git__bad", {"name": "git__bad"})
    shown = listed(Tool, bad, rule("tool", "git__add", TOOL))
    assert [tool.name for tool in shown] == ["git__add"]


def test_the_schema_shows_the_limits_of_the_caller() -> None:
    amount = {"type": "object", "properties": {"amount": {"type": "number"}}}
    limit = (Condition("", "/amount", "at_most", 100),)
    limited = rule(
        "tool", "git__pay", {**TOOL, "inputSchema": amount}, conditions=limit
    )
    (tool,) = listed(Tool, limited)
    assert tool.input_schema["properties"]["amount"]["maximum"] == 100
    assert "maximum" not in amount["properties"]["amount"]  # type: ignore[index]


def test_limits_of_what_has_no_schema_change_nothing() -> None:
    limit = (Condition("", "/amount", "at_most", 100),)
    note = {"uri": "a://b", "name": "b"}
    (item,) = listed(Resource, rule("resource", "a://b", note, conditions=limit))
    assert (item.uri, item.name) == ("a://b", "b")


def test_what_the_code_offers_is_not_built_here(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It has no accepted definition, and none that could be invalid."""
    assert listed(Tool, rule("tool", "whoami", None)) == [] and caplog.text == ""


def test_a_definition_has_the_names_of_the_protocol() -> None:
    """Those of the SDK's own attributes are not MCP."""
    named = {"name": "git__add", "input_schema": {"type": "object"}}
    assert listed(Tool, rule("tool", "git__add", named)) == []


@pytest.mark.parametrize(("most", "kept"), [(3, 3), (2, 1)])
def test_models_of_old_definitions_are_forgotten_over_the_limit(
    monkeypatch: pytest.MonkeyPatch, most: int, kept: int
) -> None:
    monkeypatch.setattr(upstream_lists, "MAX_BUILT", most)
    monkeypatch.setattr(upstream_lists, "_built", {})
    names = ["git__a", "git__b", "git__c"]
    rules = [rule("tool", name, {**TOOL, "name": name}) for name in names]
    assert [tool.name for tool in listed(Tool, *rules)] == names
    assert [name for _kind, name in upstream_lists._built] == names[-kept:]


def test_outside_a_message_nothing_is_listed() -> None:
    assert upstream_lists.upstream_items(Tool) == []


def test_a_definition_that_is_nested_too_deeply_empties_no_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def validate(definition: Any, **options: Any) -> Tool:
        if definition["name"] == "git__deep":
            raise RecursionError
        return Tool(name=definition["name"], input_schema={})

    monkeypatch.setattr(Tool, "model_validate", validate)
    rules = [rule("tool", n, {"name": n}) for n in ("git__deep", "git__plain")]
    assert [item.name for item in listed(Tool, *rules)] == ["git__plain"]
