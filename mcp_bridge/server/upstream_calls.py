"""Upstream primitives inside the SDK: its middleware relays their messages."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import anyio
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    LOG_LEVEL_META_KEY,
    METHOD_NOT_FOUND,
    SERVER_INFO_META_KEY,
)
from mcp_types.methods import is_input_required, serialize_server_result
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from mcp_bridge.access.context import Call, current_call
from mcp_bridge.server.direct_dispatch import SingleResponseContext
from mcp_bridge.upstreams.relay import refusal, relay, relayed_rule, tool_error

logger = logging.getLogger(__name__)

ASKING = ("elicitation/create", "sampling/createMessage", "roots/list")
CAPABILITY = dict(zip(ASKING, ("elicitation", "sampling", "roots"), strict=True))
"""Request of a server -> the client's capability that it needs."""
LEVELS = (
    *("debug", "info", "notice", "warning"),
    *("error", "critical", "alert", "emergency"),
)


class SdkDownstream:
    """The client of one message that the SDK serves."""

    def __init__(self, ctx: ServerRequestContext[Any, Any]) -> None:
        self.ctx = ctx
        self.meta: Mapping[str, Any] = (ctx.params or {}).get("_meta") or {}
        self.modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
        asks = self.modern or ctx.session.can_send_request
        self.capabilities: Mapping[str, Any] = self.declared() if asks else {}
        request = ctx.request
        headers = request.headers if request is not None and not self.modern else {}
        asking = bool(self.capabilities) and not self.modern
        self.session = headers.get("mcp-session-id", "") if asking else ""

    def declared(self) -> dict[str, Any]:
        """The capabilities by which the client answers questions."""
        if self.modern:
            found = self.meta.get(CLIENT_CAPABILITIES_META_KEY) or {}
        else:
            model = self.ctx.session.client_capabilities
            found = model.model_dump(by_alias=True, exclude_none=True) if model else {}
        return {name: found[name] for name in CAPABILITY.values() if name in found}

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Forward progress under the client's token, and log messages it asked for."""
        token = self.meta.get("progressToken")
        if method == "notifications/progress" and token is not None:
            shown = {**params, "progressToken": token}
        elif method == "notifications/message" and self.wants_log(params):
            shown = dict(params)
        else:
            return
        await self.ctx.session._request_outbound.notify(method, shown)

    def wants_log(self, params: Mapping[str, Any]) -> bool:
        """Whether the client asked for log messages of this level (2026-07-28)."""
        if not self.modern:
            return True
        level = self.meta.get(LOG_LEVEL_META_KEY)
        known = level in LEVELS and params.get("level") in LEVELS
        return known and LEVELS.index(params["level"]) >= LEVELS.index(level)

    async def ask(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask the client within its session. Raises MCPError."""
        if not self.session or CAPABILITY.get(method) not in self.capabilities:
            text = f"This client cannot answer {method}."
            raise MCPError(METHOD_NOT_FOUND, text)
        return await self.ctx.session._request_outbound.send_raw_request(method, params)


async def relay_upstream(
    ctx: ServerRequestContext[Any, Any], call_next: CallNext
) -> HandlerResult:
    """Middleware: relay the uses of upstream primitives, refuse their contents."""
    call = current_call()
    if call is None or ctx.request_id is None:
        return await call_next(ctx)
    if not call.decision.allowed:
        answer = refusal(call)
        return await call_next(ctx) if answer is None else shaped(ctx, answer)
    rule = relayed_rule(call)
    if rule is None:
        return await call_next(ctx)
    params, downstream = ctx.params or {}, SdkDownstream(ctx)
    if isinstance(ctx.session._request_outbound, SingleResponseContext):
        return shaped(ctx, await relay(call, rule, params, downstream), call)
    # Within a session, the SDK runs it in a task that outlives the HTTP request.
    with anyio.CancelScope() as scope:
        call.stop = scope.cancel
        return shaped(ctx, await relay(call, rule, params, downstream), call)
    raise MCPError(CONNECTION_CLOSED, "The call was stopped.")


def shaped(
    ctx: ServerRequestContext[Any, Any],
    result: Mapping[str, Any],
    call: Call | None = None,
) -> dict[str, Any]:
    """The result in the form of the client's protocol; an invalid one is an error."""
    method, version = ctx.method, ctx.protocol_version
    modern = version in MODERN_PROTOCOL_VERSIONS
    if is_input_required(result) and not modern:
        text = "The upstream server asks for input that this client cannot give."
        return shaped(ctx, failed(call, text))
    content = {key: result[key] for key in result if key not in OWN_KEYS or modern}
    if modern and content.get("resultType") is None:
        content["resultType"] = "complete"
    if modern and method == "resources/read":
        # What one person may read, a shared cache must not keep.
        content = {"ttlMs": 0, **content, "cacheScope": "private"}
    try:
        shown = serialize_server_result(method, version, content)
        if not is_input_required(content) and CONTENT.get(method, "") not in {
            "",
            *shown,
        }:
            # The SDK takes an invalid result for a question without questions.
            raise ValueError(f"no {CONTENT[method]}")
    except (ValidationError, ValueError, RecursionError):
        logger.warning("An upstream server sent an invalid result of %s", method)
        text = "The upstream server sent an invalid result."
        return shaped(ctx, failed(call, text))
    meta = {
        k: v for k, v in (shown.get("_meta") or {}).items() if k != SERVER_INFO_META_KEY
    }
    shown.pop("_meta", None)
    if modern:
        meta[SERVER_INFO_META_KEY] = PORTICO
    return {**shown, "_meta": meta} if meta else shown


def failed(call: Call | None, text: str) -> dict[str, Any]:
    """The result of a tool that failed. Raises MCPError for what is not a tool."""
    if call is not None:
        call.outcome = "error"
        if call.message.method != "tools/call":
            raise MCPError(INTERNAL_ERROR, text)
    return tool_error(text)


CONTENT = {
    "tools/call": "content",
    "prompts/get": "messages",
    "resources/read": "contents",
}
"""Method -> the member that every result has, unless it asks for input."""
OWN_KEYS = ("resultType", "ttlMs", "cacheScope")
"""What only 2026-07-28 has."""
PORTICO: dict[str, Any] = {}
"""Portico's own stamp (`serverInfo`); mcp_bridge/server/portico_server.py fills it."""
