"""The target of a message, which alone decides the rule that applies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_bridge.access.messages import (
    INVALID_REQUEST,
    OPEN_METHODS,
    PARSE_ERROR,
    REFERENCES,
    TARGETS,
    BadMessage,
    Message,
    decode_json,
    parse,
)

pytestmark = pytest.mark.once


UNUSUAL = {
    "lone surrogate": rb'"\ud800"',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "depth": b"[" * 300 + b"]" * 300,
    "no limit of size": b"1e999",
    "large integer": b"123456789012345678901234567890",
    "name twice": b'{"a": 1, "b": 2, "a": 3}',
    "not finite": b"[Infinity, -Infinity]",
}


@pytest.mark.parametrize("name", list(UNUSUAL))
def test_unusual_json_has_the_value_of_the_standard_library(name: str) -> None:
    assert decode_json(UNUSUAL[name]) == json.loads(UNUSUAL[name])


INVALID = {
    "more text": b"{}x",
    "comma": b"[1,]",
    "leading zero": b"01",
    "too many digits": b"1" * 4_301,
    "not UTF-8": b'"\xff"',
    "nothing": b"",
}


@pytest.mark.parametrize("name", list(INVALID))
def test_what_is_not_json_is_refused(name: str) -> None:
    with pytest.raises(ValueError):
        decode_json(INVALID[name])


def parsed(**content: Any) -> Message:
    return parse(json.dumps({"jsonrpc": "2.0", "id": 1, **content}).encode())


def test_the_codes_of_json_rpc() -> None:
    """JSON-RPC 2.0 5.1"""
    assert (PARSE_ERROR, INVALID_REQUEST) == (-32700, -32600)


def test_the_open_methods() -> None:
    """Each name here is served to every valid token."""
    assert sorted(OPEN_METHODS) == [
        "initialize",
        "logging/setLevel",
        "notifications/cancelled",
        "notifications/initialized",
        "notifications/progress",
        "notifications/roots/list_changed",
        "ping",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "server/discover",
        "subscriptions/listen",
        "tools/list",
    ]
    assert not OPEN_METHODS & TARGETS.keys()


TARGETED = [
    ("tools/call", "name", "tool"),
    ("prompts/get", "name", "prompt"),
    ("resources/read", "uri", "resource"),
    ("resources/subscribe", "uri", "resource"),
    ("resources/unsubscribe", "uri", "resource"),
]


def test_every_method_with_a_target_is_listed() -> None:
    assert [method for method, _name, _kind in TARGETED] == list(TARGETS)


@pytest.mark.parametrize(("method", "parameter", "kind"), TARGETED)
def test_a_method_is_decided_by_its_parameter(
    method: str, parameter: str, kind: str
) -> None:
    other = {"name": "uri", "uri": "name"}[parameter]
    message = parsed(method=method, params={parameter: "x", other: "y"})
    assert (message.method, message.target) == (method, (kind, "x"))
    assert type(message.target and message.target[0]) is str
    assert not message.malformed and not message.always_open and not message.streams
    assert parsed(method=method, params={other: "y"}) == Message(method, malformed=True)


@pytest.mark.parametrize("params", [None, [], "x", {}, {"name": 1}, {"name": None}])
def test_a_call_without_a_name_is_malformed(params: Any) -> None:
    assert parsed(method="tools/call", params=params).malformed
    assert parsed(method="tools/call", params=params).target is None


@pytest.mark.parametrize(
    "id_", ["null", "1.0", "1e0", "-1.5", "true", "false", "[]", "[1]", "{}"]
)
@pytest.mark.parametrize(
    "method", ["tools/call", "ping", "initialize", "notifications/initialized", "x/y"]
)
def test_an_id_is_a_string_or_an_integer(method: str, id_: str) -> None:
    """MCP basic/messages; otherwise the SDK takes the request for a notification."""
    body = f'{{"jsonrpc": "2.0", "method": "{method}", "id": {id_}}}'
    with pytest.raises(BadMessage) as refused:
        parse(body.encode())
    assert refused.value.code == INVALID_REQUEST
    assert str(refused.value) == "`id` must be a string or an integer."


@pytest.mark.parametrize("id_", ["", "a", "1.0", 0, -3, 2**60])
def test_every_string_and_integer_is_an_id(id_: Any) -> None:
    assert parsed(method="ping", id=id_) == Message("ping")
    assert parse(b'{"jsonrpc": "2.0", "method": "ping"}') == Message("ping")


@pytest.mark.parametrize("extra", ["result", "error"])
@pytest.mark.parametrize("method", ["tools/call", "resources/read"])
def test_a_request_with_the_keys_of_a_response_is_a_request(
    method: str, extra: str
) -> None:
    """Otherwise it would be decided and recorded as a response, which is open."""
    name = {"name": "x", "uri": "x"}
    message = parsed(method=method, params=name, **{extra: {}})
    assert message.method == method and message.target is not None
    assert not message.always_open


@pytest.mark.parametrize("key", ["result", "error"])
def test_a_response_is_open(key: str) -> None:
    message = parsed(**{key: {}})
    assert message == Message("response", always_open=True)
    assert message.content[key] == {}


REFERENCED = [
    ("ref/prompt", {"name": "x", "uri": "y"}, ("prompt", "x")),
    ("ref/resource", {"name": "y", "uri": "x"}, ("resource_template", "x")),
]


def test_every_kind_of_reference_is_listed() -> None:
    assert [kind for kind, _fields, _target in REFERENCED] == list(REFERENCES)


@pytest.mark.parametrize(("kind", "fields", "target"), REFERENCED)
def test_a_completion_is_decided_by_its_reference(
    kind: str, fields: dict[str, str], target: tuple[str, str]
) -> None:
    ref = {"type": kind, **fields}
    params = {"ref": ref, "name": "z", "uri": "z"}
    message = parsed(method="completion/complete", params=params)
    assert message == Message("completion/complete", target)
    assert message.target == target


@pytest.mark.parametrize(
    "params",
    [
        None,
        {},
        {"ref": "ref/prompt", "name": "x"},
        {"ref": {}},
        {"ref": {"type": "ref/tool", "name": "x"}},
        {"ref": {"type": ["ref/prompt"], "name": "x"}},
        {"ref": {"type": "ref/prompt", "uri": "x"}},
        {"ref": {"type": "ref/resource", "name": "x"}},
    ],
)
def test_a_completion_without_a_known_reference_is_malformed(params: Any) -> None:
    """An unknown type has no parameter by which something could be found."""
    message = parsed(method="completion/complete", params=params)
    assert message == Message("completion/complete", malformed=True)


def test_a_method_without_a_target_has_none() -> None:
    params = {"name": "x", "uri": "x"}
    assert parsed(method="tasks/get", params=params) == Message("tasks/get")
    assert parsed(method="tools/list", params=params).target is None


@pytest.mark.parametrize(
    ("method", "meta", "streams"),
    [
        ("tools/call", {"progressToken": 1}, True),
        ("tools/call", {"io.modelcontextprotocol/logLevel": "info"}, True),
        ("tools/call", {"other": 1}, False),
        ("tools/call", ["progressToken"], False),
        ("tools/call", None, False),
        ("tools/list", {"progressToken": 0}, True),
        ("subscriptions/listen", None, True),
        ("ping", None, False),
    ],
)
def test_a_request_asks_for_a_stream(method: str, meta: Any, streams: bool) -> None:
    for name in ({"name": "x"}, {}):
        message = parsed(method=method, params={**name, "_meta": meta})
        assert message.streams is streams
        assert message.malformed is (method == "tools/call" and not name)


def test_the_decoded_body_is_kept() -> None:
    for method in ("tools/call", "tools/list"):
        message = parsed(method=method, params={"name": "x", "arguments": {"a": 1}})
        assert message.content["params"]["arguments"] == {"a": 1}
    assert parsed(method="tools/call", params={}).content["id"] == 1
    assert "arguments" not in repr(message), "arguments do not reach a log"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", PARSE_ERROR),
        (b"{", PARSE_ERROR),
        (b"\xff", PARSE_ERROR),
        (b"[" * 200_000, PARSE_ERROR),
        (b"[]", INVALID_REQUEST),
        (b'[{"jsonrpc":"2.0","method":"ping"}]', INVALID_REQUEST),
        (b'"ping"', INVALID_REQUEST),
        (b"{}", INVALID_REQUEST),
        (b'{"method":"ping"}', INVALID_REQUEST),
        (b'{"jsonrpc":"1.0","method":"ping"}', INVALID_REQUEST),
        (b'{"jsonrpc":2.0,"method":"ping"}', INVALID_REQUEST),
        (b'{"jsonrpc":"2.0"}', INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1}', INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","method":1}', INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","method":null,"result":{}}', INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","method":["ping"]}', INVALID_REQUEST),
    ],
    ids=range(16),
)
def test_what_is_not_one_message_is_refused(body: bytes, code: int) -> None:
    with pytest.raises(BadMessage) as refused:
        parse(body)
    assert refused.value.code == code and str(refused.value) in TEXTS[code]


TEXTS = {
    PARSE_ERROR: {"Parse error: the body is not JSON."},
    INVALID_REQUEST: {
        "Body must be a single JSON-RPC 2.0 message object.",
        "`method` must be a string.",
    },
}
"""Code -> what the client reads."""


def test_another_target_leaves_the_rest_of_a_message() -> None:
    """A resource that a template serves is decided by the template."""
    params = {"uri": "a://1", "_meta": {"progressToken": 1}}
    message = parsed(method="resources/read", params=params)
    moved = message.with_target("resource_template", "a://{n}")
    assert moved.target == ("resource_template", "a://{n}")
    assert moved.streams and moved.method == "resources/read"
    assert moved.content is message.content and message.target == ("resource", "a://1")
