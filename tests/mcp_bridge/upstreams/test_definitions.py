"""Offers of upstream definitions: names, hashes, and reasons for what is unusable."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_bridge.access.catalogue import Rule
from mcp_bridge.models import Offer, PrimitiveKind, UpstreamServer
from mcp_bridge.upstreams import definitions
from mcp_bridge.upstreams.definitions import (
    LARGEST,
    MODELS,
    mirrored_arguments,
    offer_of,
    shown_name,
)

TOOL: dict[str, Any] = {
    "name": "add",
    "description": "Add.",
    "inputSchema": {"type": "object"},
}


def offered(kind: str = PrimitiveKind.TOOL, prefix: str = "git", **item: Any) -> Offer:
    return offer_of(UpstreamServer(name="git", prefix=prefix), kind, item)


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        schema = {"not": schema}
    return schema


def test_a_tool_gets_the_prefix_and_keeps_its_own_name() -> None:
    offer = offered(**TOOL)
    assert (offer.name, offer.upstream_name) == ("git__add", "add")
    assert offer.shown["name"] == "git__add"
    assert offer.problem == ""


def test_without_a_prefix_a_tool_keeps_its_name() -> None:
    assert offered(prefix="", **TOOL).name == "add"


@pytest.mark.parametrize("name", ["a" * 80, "get pets/{id}", "날씨", "a.b", "a__b"])
def test_every_name_fits_the_clients_limits(name: str) -> None:
    shown = shown_name("git", name)
    assert len(shown) <= 64
    assert all(c.isascii() and (c.isalnum() or c in "_-") for c in shown)


def test_names_that_are_shortened_stay_different() -> None:
    assert shown_name("git", "a" * 80) != shown_name("git", "a" * 81)
    assert shown_name("git", "a.b") != shown_name("git", "a/b")


def test_a_uri_stays_the_same() -> None:
    resource = offered(PrimitiveKind.RESOURCE, uri="note://one", name="one")
    assert resource.name == resource.upstream_name == "note://one"


@pytest.mark.parametrize(
    "change",
    [
        {"description": "Add!"},
        {"title": "Adder"},
        {"inputSchema": {"type": "object", "required": ["a"]}},
        {"outputSchema": {"type": "object"}},
        {"annotations": {"destructiveHint": True}},
        {"icons": [{"src": "https://h.example/i.png"}]},
        {"_meta": {"ui": "x"}},
    ],
)
def test_the_hash_covers_everything_that_clients_see(change: dict[str, Any]) -> None:
    assert offered(**TOOL).definition != offered(**{**TOOL, **change}).definition


def test_the_order_of_keys_does_not_matter() -> None:
    other = dict(reversed(list(TOOL.items())))
    assert offered(**TOOL).definition == offered(**other).definition


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({}, "no name"),
        ({**TOOL, "name": 7}, "no name"),
        ({**TOOL, "name": "a\u202eb"}, "cannot be shown"),
        ({**TOOL, "name": "a\ud800"}, "cannot be shown"),
        ({**TOOL, "description": "a\x00b"}, "cannot be stored"),
        ({**TOOL, "description": "a\ud800"}, "cannot be stored"),
        ({**TOOL, "inputSchema": nested(5_000)}, "nested too deeply"),
        ({"name": "add"}, "inputSchema"),
        ({**TOOL, "inputSchema": {"type": 7}}, "not a valid JSON Schema"),
        ({**TOOL, "outputSchema": {"required": "a"}}, "outputSchema"),
        ({**TOOL, "description": "x" * LARGEST}, "larger than 64 KB"),
        (
            {
                **TOOL,
                "inputSchema": {
                    "type": "object",
                    "properties": {"a": {"type": "string", "x-mcp-header": "a b"}},
                },
            },
            "x-mcp-header",
        ),
    ],
)
def test_an_unusable_tool_keeps_a_row_with_its_reason(
    item: dict[str, Any], reason: str
) -> None:
    offer = offered(**item)
    assert reason in offer.problem
    assert offer.name.rpartition("#")[1]
    assert len(offer.name) <= 255

    offer.name.encode()  # can be stored


def test_a_description_may_explain_an_escape() -> None:
    assert offered(**{**TOOL, "description": "Removes \\u0000."}).problem == ""


@pytest.mark.parametrize("item", [None, 7, [], "add"])
def test_an_item_that_is_no_object_is_unusable(item: Any) -> None:
    offer = offer_of(UpstreamServer(name="git"), PrimitiveKind.TOOL, item)
    assert offer.problem == "It has no name."


def test_a_long_uri_is_unusable() -> None:
    uri = "note://" + "a" * 239
    longest = offered(PrimitiveKind.RESOURCE, uri=uri, name="a")
    assert longest.problem == "" and len(longest.own_scope) == 255
    uri += "a"
    offer = offered(PrimitiveKind.RESOURCE, uri=uri, name="a")
    assert "longer than 246" in offer.problem and len(offer.own_scope) <= 255
    assert offer.upstream_name == uri


def mirroring(header: str) -> Rule:
    """The rule of a tool whose argument `region` is repeated by a header."""
    region = {"type": "string", "x-mcp-header": header}
    schema = {"type": "object", "properties": {"region": region}}
    shown = {"name": "git__sell", "inputSchema": schema}
    scopes = frozenset({"User.Read"})
    return Rule("tool", "git__sell", True, False, scopes, definition=shown)


def test_mirrored_arguments_follow_the_accepted_definition() -> None:
    assert mirrored_arguments(mirroring("Region")) == {("region",): "Region"}
    assert mirrored_arguments(mirroring("Place")) == {("region",): "Place"}
    code = Rule("tool", "look", True, False, frozenset())
    assert mirrored_arguments(code) == {}


def test_the_schema_of_a_tool_is_walked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for each call: a schema may have 64 KB."""
    walked: list[Any] = []

    def walk(schema: Any) -> dict[tuple[str, ...], str]:
        walked.append(schema)
        return {}

    monkeypatch.setattr(definitions, "x_mcp_header_map", walk)
    rule = mirroring("Once")
    for _ in range(3):
        mirrored_arguments(rule)
    assert len(walked) == 1


def test_a_definition_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each discovery sees the same hundreds of tools again."""
    checked: list[str] = []

    def check(kind: str, model: Any, name: str, shown: Any, size: int) -> str:
        checked.append(name)
        return "It is too odd." if name == "odd" else ""

    monkeypatch.setattr(definitions, "definition_problem", check)
    for name in ("once", "odd", "once", "odd"):
        problem = offered(**{**TOOL, "name": name}).problem
        assert problem == ("It is too odd." if name == "odd" else "")
    offered(**{**TOOL, "name": "once", "description": "Another."})
    assert checked == ["once", "odd", "once"]


def test_a_large_definition_is_not_stored() -> None:
    assert offered(**{**TOOL, "description": "x" * LARGEST}).shown == {}
    assert offered(**TOOL).shown["description"] == "Add."


def test_the_own_title_comes_before_that_of_the_annotations() -> None:
    hint = {"annotations": {"title": "Hint"}}
    assert offered(**{**TOOL, **hint}).title == "Hint"
    assert offered(**{**TOOL, **hint, "title": "Own"}).title == "Own"
    assert offered(**{**TOOL, "annotations": None}).title == ""


def test_a_definition_is_judged_as_what_it_is() -> None:
    """The same members may be right for one kind and wrong for another."""
    name = "the_same_for_both"
    assert offered(PrimitiveKind.PROMPT, prefix="", name=name).problem == ""
    assert "inputSchema" in offered(PrimitiveKind.TOOL, prefix="", name=name).problem


def test_texts_fit_their_columns_whatever_a_server_sends() -> None:
    """Pages show them on one line."""
    long = offered(**{**TOOL, "name": "a" * 3000, "description": "x" * (LARGEST + 9)})
    assert long.problem and len(long.name) <= 255 and len(long.upstream_name) == 2048
    assert len(long.description) == LARGEST
    lines = offered(**{**TOOL, "title": "Add\n two", "description": " Adds.\n"})
    assert (lines.title.split(), lines.description) == (["Add", "two"], "Adds.")
    assert "\n" not in lines.title
    assert offered(**{**TOOL, "name": "a\nb"}).name.startswith("git__a_b")
    assert "\n" not in offered(**{**TOOL, "name": "a\nb"}).upstream_name
    assert "\n" not in offered(PrimitiveKind.RESOURCE, uri="a://b\nc", name="a").name


@pytest.mark.parametrize("kind", [PrimitiveKind.RESOURCE, PrimitiveKind.PROMPT])
def test_only_tools_have_schemas_to_check(kind: PrimitiveKind) -> None:
    item: dict[str, Any] = {"name": "a", "uri": "a://b", "inputSchema": {"type": 7}}
    assert offered(kind, **item).problem == ""


@pytest.mark.parametrize(
    ("kind", "member"),
    [
        (PrimitiveKind.RESOURCE, "uri"),
        (PrimitiveKind.RESOURCE_TEMPLATE, "uriTemplate"),
        (PrimitiveKind.PROMPT, "name"),
    ],
)
def test_a_uri_is_bounded_and_a_name_may_be_longer(
    kind: PrimitiveKind, member: str
) -> None:
    long = "a" * 256
    offer = offered(kind, **{"name": "a", member: long})
    assert ("longer than 246" in offer.problem) is (member != "name")
    assert offer.upstream_name == long


def test_a_definition_of_the_largest_size_is_served() -> None:
    empty = len(definitions.canonical_bytes({**TOOL, "name": "git__add"}))
    room = LARGEST - empty + len("Add.")
    whole = offered(**{**TOOL, "description": "x" * room})
    assert whole.problem == "" and whole.shown["description"] == "x" * room
    assert offered(**{**TOOL, "description": "x" * (room + 1)}).problem


@pytest.mark.parametrize(
    ("checked_by", "reason"),
    [
        ("model", "It does not follow the MCP specification: too deep"),
        ("validator_for", "inputSchema is not a valid JSON Schema: too deep"),
    ],
)
def test_a_check_that_goes_too_deep_is_a_problem_of_the_item(
    monkeypatch: pytest.MonkeyPatch, checked_by: str, reason: str
) -> None:
    """Not of the discovery, which has other items."""

    def too_deep(*_about: Any, **_options: Any) -> None:
        raise RecursionError("too\ndeep")

    model = MODELS["tool"][0]
    if checked_by == "model":
        monkeypatch.setattr(model, "model_validate", too_deep)
    else:
        monkeypatch.setattr("jsonschema.validators.validator_for", too_deep)
    found = definitions.definition_problem("tool", model, "add", TOOL, 9)
    assert found == reason
