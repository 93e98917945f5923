"""A primitive hidden by roles gives byte for byte the response of a missing one."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from mcp_bridge.models import Primitive
from tests.support.mcp_client import ERAS, MODERN, McpClient, mcp_client, message_in
from tests.support.server import Portico

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]

PAIRS: list[tuple[str, dict[str, Any], str, str]] = [
    ("tools/call", {"name": "{}", "arguments": {}}, "rule", "nope"),
    ("tools/call", {"name": "{}", "arguments": {"region": "x"}}, "rule", "nope"),
    ("tools/call", {"name": "{}", "arguments": {"bad": [1]}}, "rule", "nope"),
    ("tools/call", {"name": "{}", "arguments": "text"}, "rule", "nope"),
    ("tools/call", {"name": "{}"}, "lonely", "lonexx"),
    ("resources/read", {"uri": "{}"}, "shop://vault", "shop://vaulx"),
    ("resources/read", {"uri": "{}"}, "shop://safe/1", "shop://sofe/1"),
    ("resources/read", {"uri": "{}"}, "shop://safe/..", "shop://sofe/.."),
    ("prompts/get", {"name": "{}"}, "decree", "decrxx"),
    ("prompts/get", {"name": "{}", "arguments": {"a": "b"}}, "decree", "decrxx"),
    (
        "completion/complete",
        {
            "ref": {"type": "ref/prompt", "name": "{}"},
            "argument": {"name": "text", "value": "a"},
        },
        "decree",
        "decrxx",
    ),
    (
        "completion/complete",
        {
            "ref": {"type": "ref/resource", "uri": "{}"},
            "argument": {"name": "number", "value": "a"},
        },
        "shop://safe/{number}",
        "shop://sofe/{number}",
    ),
    ("resources/subscribe", {"uri": "{}"}, "shop://vault", "shop://vaulx"),
    ("resources/unsubscribe", {"uri": "{}"}, "shop://vault", "shop://vaulx"),
]


def with_name(params: Any, name: str) -> Any:
    """`params` with the name inserted."""
    if isinstance(params, dict):
        return {key: with_name(value, name) for key, value in params.items()}
    return name if params == "{}" else params


def without_name(response: httpx2.Response, name: str) -> tuple[int, bytes, list[str]]:
    """All that a client can see, with the requested name blanked out."""
    body = response.content.replace(name.encode(), b"#")
    varying = ("date", "x-request-id", "content-length", "mcp-session-id")
    headers = [f"{k}: {v}" for k, v in response.headers.items() if k not in varying]
    return response.status_code, body, headers


@pytest.mark.spec("MCP TOOLS access control")
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(("method", "params", "hidden", "unknown"), PAIRS)
def test_a_hidden_primitive_looks_unknown(
    server: Portico,
    era: str,
    method: str,
    params: dict[str, Any],
    hidden: str,
    unknown: str,
) -> None:
    """A refusal does not reveal that a hidden primitive exists."""
    answers = []
    for name in (hidden, unknown):
        client = mcp_client(server, "alice", era)
        answers.append(without_name(client.post(method, with_name(params, name)), name))
    assert answers[0] == answers[1]
    assert answers[0][0] in (200, 400, 404)


@pytest.mark.spec("MCP HTTP Custom Headers")
@pytest.mark.parametrize("value", ["north", "=?base64?bm9ydGg=?=", ""])
def test_header_validation_does_not_reveal_a_hidden_tool(
    server: Portico, value: str
) -> None:
    """MCP HTTP, Custom Headers: the SDK would answer -32020 for a known tool."""
    answers = []
    for name in ("rule", "nope"):
        params = {"name": name, "arguments": {"region": "south"}}
        headers = {"mcp-param-region": value}
        response = mcp_client(server, "alice").post("tools/call", params, headers)
        answers.append(without_name(response, name))
    assert answers[0] == answers[1]
    admin = mcp_client(server, "carol", scope="mcp Admin.Write")
    checked = admin.post(
        "tools/call",
        {"name": "rule", "arguments": {"region": "south"}},
        {"mcp-param-region": "north"},
    )
    assert message_in(checked)["error"]["code"] == -32020


@pytest.mark.parametrize("era", ERAS)
def test_a_disabled_primitive_is_unknown_even_to_admins(
    server: Portico, era: str
) -> None:
    client = mcp_client(server, "carol", era)
    assert client.allowed("rule")
    Primitive.objects.filter(name="rule").update(enabled=False)
    try:
        assert "Unknown tool: rule" in client.call("rule").text
        assert "rule" not in client.tools()
    finally:
        Primitive.objects.filter(name="rule").update(enabled=True)
    assert client.allowed("rule")


@pytest.mark.parametrize("era", ERAS)
def test_a_visible_primitive_works(server: Portico, era: str) -> None:
    """Without this the tests above could pass because nothing works."""
    carol = mcp_client(server, "carol", era)
    assert carol.text("look") == "carol looks at shelf"
    read = carol.ask("resources/read", uri="shop://vault")["result"]
    assert read["contents"][0]["text"] == "gold"
    read = carol.ask("resources/read", uri="shop://safe/7")["result"]
    assert read["contents"][0]["text"] == "safe 7"
    got = carol.ask("prompts/get", name="decree", arguments={"text": "peace"})
    assert "Proclaim peace" in str(got)
    ref = {"type": "ref/prompt", "name": "decree"}
    argument = {"name": "text", "value": "a"}
    found = carol.ask("completion/complete", ref=ref, argument=argument)["result"]
    assert found["completion"]["values"] == ["alpha", "beta"]


def test_a_missing_name_is_invalid_params(server: Portico) -> None:
    """JSON-RPC 2.0 5.1: invalid params."""
    for method in ("tools/call", "prompts/get", "resources/read"):
        for params in ({}, {"name": 7, "uri": []}, {"name": None, "uri": None}):
            client = McpClient(server, server.token("alice"), MODERN)
            answer = client.post(method, params, {"mcp-name": "x"})
            assert answer.status_code in (200, 400), answer.text
            assert message_in(answer)["error"]["code"] in (-32602, -32020)
