"""Message: one parsed JSON-RPC body and its target.

JSON-RPC 2.0; MCP 2025-11-25 and 2026-07-28 (both refuse batches).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic_core import from_json

from mcp_bridge.models import PrimitiveKind

PARSE_ERROR, INVALID_REQUEST = -32700, -32600

OPEN_METHODS = frozenset(
    {
        "initialize",
        "ping",
        "server/discover",
        "tools/list",
        "resources/list",
        "resources/templates/list",
        "prompts/list",
        "logging/setLevel",
        "subscriptions/listen",
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
        "notifications/roots/list_changed",
    }
)
"""Open to every principal; the items in lists and streams are filtered."""

TARGETS = {
    "tools/call": (PrimitiveKind.TOOL.value, "name"),
    "prompts/get": (PrimitiveKind.PROMPT.value, "name"),
    "resources/read": (PrimitiveKind.RESOURCE.value, "uri"),
    "resources/subscribe": (PrimitiveKind.RESOURCE.value, "uri"),
    "resources/unsubscribe": (PrimitiveKind.RESOURCE.value, "uri"),
}
"""Method -> kind of its primitive, and the parameter with its name."""

ARGUMENT_METHODS = frozenset({"tools/call", "prompts/get"})
"""Methods whose arguments the argument rules decide."""

REFERENCES = {
    "ref/prompt": (PrimitiveKind.PROMPT.value, "name"),
    "ref/resource": (PrimitiveKind.RESOURCE_TEMPLATE.value, "uri"),
}
"""`ref.type` of completion/complete -> kind, and the parameter with its name."""
NO_REFERENCE = (PrimitiveKind.PROMPT.value, "")


STREAM_KEYS = frozenset({"progressToken", "io.modelcontextprotocol/logLevel"})
"""Keys of `_meta` by which a request asks for more than its result."""


class BadMessage(Exception):
    """The body is not one JSON-RPC message; `code` is the JSON-RPC error code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Message:
    """One request, notification or response. `target` is (kind, name) or None."""

    method: str
    target: tuple[str, str] | None = None
    always_open: bool = False
    """A client's response to a request, or opening or ending a stream."""
    malformed: bool = False
    streams: bool = False
    """The request asks for progress, log messages or subscription events."""
    content: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """The decoded body."""

    @property
    def arguments(self) -> Any:
        """The arguments of a call; an empty object if it has none."""
        params = self.content.get("params")
        found = params.get("arguments") if isinstance(params, dict) else None
        return {} if found is None else found

    def with_target(self, kind: str, name: str) -> Message:
        """The same message with another target."""
        return replace(self, target=(str(kind), name))


def parse(body: bytes) -> Message:
    """Parse one message. Raises BadMessage."""
    try:
        decoded = decode_json(body)
    except (ValueError, RecursionError) as error:
        raise BadMessage(PARSE_ERROR, "Parse error: the body is not JSON.") from error
    if not isinstance(decoded, dict) or decoded.get("jsonrpc") != "2.0":
        raise BadMessage(
            INVALID_REQUEST, "Body must be a single JSON-RPC 2.0 message object."
        )
    if "method" not in decoded and ("result" in decoded or "error" in decoded):
        return Message("response", always_open=True, content=decoded)
    return _with_target(decoded)


def decode_json(body: bytes) -> Any:
    """The value that `json.loads` finds. Raises ValueError, RecursionError.

    pydantic_core is three times as fast. It accepts less: no lone surrogates, no other
    encoding than UTF-8, and less depth.
    """
    try:
        return from_json(body, cache_strings="keys")
    except ValueError:
        return json.loads(body)


def _with_target(content: Mapping[str, Any]) -> Message:
    """The message with its target. Raises BadMessage."""
    method, params = content.get("method"), content.get("params")
    if not isinstance(method, str):
        raise BadMessage(INVALID_REQUEST, "`method` must be a string.")
    if "id" in content and type(content["id"]) not in (str, int):
        # The SDK would take it for a notification: 202, and nothing runs.
        raise BadMessage(INVALID_REQUEST, "`id` must be a string or an integer.")
    fields: Mapping[str, Any] = params if isinstance(params, dict) else {}
    streams = method == "subscriptions/listen" or _opted_in(fields.get("_meta"))
    target = TARGETS.get(method)
    if method == "completion/complete":
        ref = fields.get("ref")
        fields = ref if isinstance(ref, dict) else {}
        target = REFERENCES.get(str(fields.get("type")), NO_REFERENCE)
    if target is None:
        return Message(method, streams=streams, content=content)
    kind, parameter = target
    name = fields.get(parameter)
    if not isinstance(name, str):
        return Message(method, malformed=True, streams=streams, content=content)
    return Message(method, (kind, name), streams=streams, content=content)


def _opted_in(meta: Any) -> bool:
    return isinstance(meta, dict) and not STREAM_KEYS.isdisjoint(meta)
