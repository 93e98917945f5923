"""Message: what one JSON-RPC body asks for, read from the body and nothing else.

JSON-RPC 2.0; MCP 2025-11-25 and 2026-07-28 (both refuse batches).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

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
"""Open to every principal; what lists and streams carry is filtered one by one."""

TARGETS = {
    "tools/call": (PrimitiveKind.TOOL, "name"),
    "prompts/get": (PrimitiveKind.PROMPT, "name"),
    "resources/read": (PrimitiveKind.RESOURCE, "uri"),
    "resources/subscribe": (PrimitiveKind.RESOURCE, "uri"),
    "resources/unsubscribe": (PrimitiveKind.RESOURCE, "uri"),
}
"""Method -> kind of primitive it is about, and the parameter that names it."""

REFERENCES = {
    "ref/prompt": (PrimitiveKind.PROMPT, "name"),
    "ref/resource": (PrimitiveKind.RESOURCE_TEMPLATE, "uri"),
}
"""completion/complete: `ref.type` -> the same."""


STREAM_KEYS = frozenset({"progressToken", "io.modelcontextprotocol/logLevel"})
"""Keys of `_meta` by which a request asks to be told more than its result."""


class BadMessage(Exception):
    """The body is not one JSON-RPC message; `code` is JSON-RPC's."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Message:
    """One request, notification or response. `target` is (kind, name) or None."""

    method: str
    target: tuple[str, str] | None = None
    always_open: bool = False
    """A client's answer to a question, or opening or ending a stream."""
    malformed: bool = False
    streams: bool = False
    """Asks for a stream: progress, log messages, or what subscriptions bring."""
    content: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """The whole of it, decoded."""

    def about(self, kind: str, name: str) -> Message:
        """The same message with its target resolved."""
        return replace(self, target=(str(kind), name))


def parse(body: bytes) -> Message:
    """Read one message. Raises BadMessage."""
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadMessage(PARSE_ERROR, "Parse error: the body is not JSON.") from error
    if not isinstance(decoded, dict) or decoded.get("jsonrpc") != "2.0":
        raise BadMessage(
            INVALID_REQUEST, "Body must be a single JSON-RPC 2.0 message object."
        )
    if "method" not in decoded and ("result" in decoded or "error" in decoded):
        return Message("response", always_open=True, content=decoded)
    return _aimed(decoded)


def _aimed(content: Mapping[str, Any]) -> Message:
    """The message with the primitive its parameters name. Raises BadMessage."""
    method, params = content.get("method"), content.get("params")
    if not isinstance(method, str):
        raise BadMessage(INVALID_REQUEST, "A message names its method as text.")
    given: Mapping[str, Any] = params if isinstance(params, dict) else {}
    streams = method == "subscriptions/listen" or _opted_in(given.get("_meta"))
    found = TARGETS.get(method)
    if method == "completion/complete":
        ref = given.get("ref")
        given = ref if isinstance(ref, dict) else {}
        found = REFERENCES.get(str(given.get("type")), (PrimitiveKind.PROMPT, ""))
    if found is None:
        return Message(method, streams=streams, content=content)
    kind, parameter = found
    name = given.get(parameter)
    if not isinstance(name, str):
        return Message(method, malformed=True, streams=streams, content=content)
    return Message(method, (str(kind), name), streams=streams, content=content)


def _opted_in(meta: Any) -> bool:
    return isinstance(meta, dict) and not STREAM_KEYS.isdisjoint(meta)
