"""The SDK's managers show a caller what the caller may use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from mcp.server.mcpserver.resources.templates import ResourceSecurity

from mcp_bridge.access.catalogue import Catalogue, Condition, Rule
from mcp_bridge.access.context import Call, call_var
from mcp_bridge.access.decision import decide
from mcp_bridge.access.messages import Message
from mcp_bridge.server.portico_server import PorticoServer
from mcp_bridge.server.visibility import is_usable, narrowed_tool
from tests.support.asgi import run
from tests.support.mcp_in_process import caller

pytestmark = pytest.mark.once
server = PorticoServer("visibility")


@server.tool(scopes=["Use"])
def look(number: int = 0) -> str:
    """Visible."""
    return ""


@server.tool(scopes=["Rule"])
def rule() -> str:
    """Hidden."""
    return ""


@server.prompt(scopes=["Use"])
def greet() -> str:
    """Visible."""
    return ""


@server.prompt(scopes=["Rule"])
def decree() -> str:
    """Hidden."""
    return ""


@server.resource("a://open", scopes=["Use"])
def opened() -> str:
    """Visible."""
    return "open"


@server.resource("a://vault", scopes=["Rule"])
def vault() -> str:
    """Hidden."""
    return "gold"


@server.resource("a://shelf/{number}", scopes=["Use"])
def shelf(number: str) -> str:
    """Visible."""
    return f"shelf {number}"


@server.resource("a://safe/{number}", scopes=["Rule"])
def safe(number: str) -> str:
    """Hidden."""
    return f"safe {number}"


LAX = ResourceSecurity(exempt_params={"place", "number"})


@server.resource("a://{place}/{number}", scopes=["Use"], security=LAX)
def anything(place: str, number: str) -> str:
    """Matches also what a hidden template before it serves."""
    return f"{place} {number}"


@contextmanager
def message(
    method: str = "ping", target: tuple[str, str] | None = None, *grants: str
) -> Iterator[Call]:
    """Within a message of somebody with the role scope `Use` or these."""
    rules = Catalogue(
        Rule(kind, name, True, sensitive, frozenset(scopes))
        for (kind, name), (scopes, sensitive) in server.access.items()
    )
    who, sent = caller("alice", *(grants or ("Use",))), Message(method, target)
    call = Call(who, sent, rules, decide(who, sent, rules))
    token = call_var.set(call)
    yield call
    call_var.reset(token)


def names() -> list[list[str]]:
    return [
        [tool.name for tool in server.tools.list_tools()],
        [prompt.name for prompt in server.prompts.list_prompts()],
        [str(resource.uri) for resource in server.resources.list_resources()],
        [template.uri_template for template in server.resources.list_templates()],
    ]


def all_names() -> list[list[str]]:
    return [
        [tool.name for tool in server.tools.all_tools()],
        [prompt.name for prompt in server.prompts.all_prompts()],
        [str(resource.uri) for resource in server.resources.all_resources()],
        [template.uri_template for template in server.resources.all_templates()],
    ]


def test_lists_show_what_the_caller_may_use() -> None:
    with message():
        assert names() == [
            ["look"],
            ["greet"],
            ["a://open"],
            ["a://shelf/{number}", "a://{place}/{number}"],
        ]
    with message("ping", None, "Rule"):
        assert names() == [["rule"], ["decree"], ["a://vault"], ["a://safe/{number}"]]


def test_a_tool_is_listed_with_the_limits_of_the_caller() -> None:
    limit = Condition("Crew", "/number", "at_most", 5)
    with message() as call:
        rules = [replace(r, conditions=(limit,)) for r in call.catalogue.values()]
        call.catalogue = Catalogue(rules)
        (listed,) = server.tools.list_tools()
        assert listed.parameters["properties"]["number"]["maximum"] == 5
        call.principal = replace(call.principal, grants={"Use": ("Other",)})
        (same,) = server.tools.list_tools()
        assert "maximum" not in same.parameters["properties"]["number"]


def test_a_tool_without_limits_is_shown_as_registered() -> None:
    """Also outside a message, and if its row is gone."""
    tool = server.tools._tools["look"]
    assert narrowed_tool(tool) is tool
    with message() as call:
        assert narrowed_tool(tool) is tool
        call.catalogue = Catalogue()
        assert narrowed_tool(tool) is tool


def test_a_list_names_nothing_that_no_code_offers() -> None:
    """A row may outlive its code."""
    with message() as call:
        call.catalogue = Catalogue(
            [Rule("tool", "gone", True, False, frozenset({"Use"}))]
        )
        assert names() == [[], [], [], []]


def test_outside_a_message_nothing_exists() -> None:
    assert names() == [[], [], [], []]
    assert server.tools.get_tool("look") is None
    assert server.prompts.get_prompt("greet") is None
    assert not is_usable("tool", "look")
    with pytest.raises(ResourceNotFoundError):
        run(server.resources.get_resource("a://open", Context()))


def test_the_catalogue_sees_everything() -> None:
    assert all_names() == [
        ["look", "rule"],
        ["greet", "decree"],
        ["a://open", "a://vault"],
        ["a://shelf/{number}", "a://safe/{number}", "a://{place}/{number}"],
    ]


def test_a_hidden_primitive_is_not_found() -> None:
    with message():
        assert server.tools.get_tool("look") is not None
        assert server.tools.get_tool("rule") is None
        assert server.tools.get_tool("nothing") is None
        assert server.prompts.get_prompt("greet") is not None
        assert server.prompts.get_prompt("decree") is None


def test_the_target_of_a_message_has_its_decision() -> None:
    """The rows may have changed since; the decision is checked elsewhere."""
    with message("tools/call", ("tool", "look")) as call:
        assert is_usable("tool", "look")
        call.catalogue = Catalogue()
        assert is_usable("tool", "look") and not is_usable("prompt", "look")
    with message("tools/call", ("tool", "rule")) as call:
        call.principal = caller("alice", "Rule")
        assert not is_usable("tool", "rule")


@pytest.mark.parametrize(
    ("uri", "key"),
    [
        ("a://open", ("resource", "a://open")),
        ("a://vault", ("resource", "a://vault")),
        ("a://shelf/1", ("resource_template", "a://shelf/{number}")),
        ("a://safe/1", ("resource_template", "a://safe/{number}")),
        ("a://x/1", ("resource_template", "a://{place}/{number}")),
        ("a://safe/..", None),
        ("b://x", None),
        ("", None),
    ],
)
def test_the_first_match_serves_a_uri(uri: str, key: Any) -> None:
    """A hidden match is not replaced by another one; a dangerous URI matches none."""
    assert server.resources.locate(uri) == key


@pytest.mark.parametrize("uri", ["a://vault", "a://safe/1", "a://safe/..", "b://x"])
def test_a_hidden_resource_is_unknown(uri: str) -> None:
    with message(), pytest.raises(ResourceNotFoundError) as error:
        run(server.resources.get_resource(uri, Context()))
    assert str(error.value) == f"Unknown resource: {uri}"


@pytest.mark.parametrize("uri", ["a://open", "a://shelf/1"])
def test_a_visible_resource_is_found(uri: str) -> None:
    with message():
        assert str(run(server.resources.get_resource(uri, Context())).uri) == uri  # type: ignore[union-attr]
