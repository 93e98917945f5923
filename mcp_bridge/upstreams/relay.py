"""relay(): the path of an allowed message to the upstream server that serves it.

Limits, credential, request, answer. A problem of the server becomes the result of a
tool or a JSON-RPC error that names the server and the next step. A request is never
sent again once its bytes have left.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    LOG_LEVEL_META_KEY,
    METHOD_NOT_FOUND,
)
from mcp_types.methods import is_input_required

from mcp_bridge.access.catalogue import Rule
from mcp_bridge.access.context import Call
from mcp_bridge.access.decision import Reason
from mcp_bridge.db import in_database
from mcp_bridge.models import UpstreamCredential
from mcp_bridge.upstreams.definitions import mirrored_arguments
from mcp_bridge.upstreams.exchange import NAMES, Downstream, request
from mcp_bridge.upstreams.limits import admitted
from mcp_bridge.upstreams.problems import Outcome, UpstreamProblem

logger = logging.getLogger(__name__)

Json = Mapping[str, Any]

FORWARDED = {
    "tools/call": ("arguments", "inputResponses", "requestState"),
    "prompts/get": ("arguments", "inputResponses", "requestState"),
    "resources/read": ("inputResponses", "requestState"),
    "completion/complete": ("argument", "context"),
}
"""Method -> the parameters that reach the upstream server, besides the target."""
META_KEYS = ("traceparent", "tracestate", "baggage", LOG_LEVEL_META_KEY)
"""Keys of `_meta` that are forwarded; a client may keep secrets under others."""
MAX_ROUNDS = 10
"""Rounds of questions that one call of an older client may cause."""


def relayed_rule(call: Call) -> Rule | None:
    """The upstream primitive that the message uses; None for one of the code."""
    target = call.message.target
    rule = call.catalogue.get(target) if target is not None else None
    return rule if rule is not None and rule.upstream is not None else None


def tool_error(text: str) -> dict[str, Any]:
    """The result of a tool that failed, for the model to read."""
    return {"content": [{"type": "text", "text": text}], "isError": True}


def refusal(call: Call) -> dict[str, Any] | None:
    """The answer to a use whose roles allow it and whose content does not.

    None for every other decision. Raises MCPError for what is not a tool.
    """
    texts = {
        Reason.DEFINITION_CHANGED: (
            "The definition of this item changed, and an administrator has to accept "
            "it first. Tell the person who asked you."
        ),
        Reason.ARGUMENT_REFUSED: call.decision.via,
    }
    text = texts.get(call.decision.reason)
    if text is None:
        return None
    if call.message.method == "tools/call":
        return tool_error(text)
    raise MCPError(INVALID_PARAMS, text)


async def relay(
    call: Call, rule: Rule, params: Json, downstream: Downstream
) -> dict[str, Any]:
    """Let the upstream server serve the message; sets the outcome for the audit.

    Returns the result in the server's form. Raises MCPError with its error, or for a
    problem of a prompt or a resource.
    """
    method, began = call.message.method, time.perf_counter()
    call.outcome = Outcome.ERROR
    try:
        result = await serve(
            call, rule, method, upstream_params(rule, method, params), downstream
        )
        failed = result.get("isError") is True
        call.outcome = Outcome.ERROR if failed else Outcome.OK
        return result
    except asyncio.CancelledError:
        call.outcome = "cancelled"
        raise
    except UpstreamProblem as problem:
        call.outcome = problem.outcome
        logger.info("Upstream %s: %s", rule.upstream and rule.upstream.name, problem)
        if problem.code == "credential":
            await credential_rejected(rule)
        if method == "tools/call":
            return tool_error(problem.text)
        raise MCPError(INTERNAL_ERROR, problem.text) from problem
    finally:
        if rule.upstream is not None:
            call.upstream = rule.upstream.name
            call.upstream_ms = round((time.perf_counter() - began) * 1000, 3)


async def serve(
    call: Call, rule: Rule, method: str, params: dict[str, Any], downstream: Downstream
) -> dict[str, Any]:
    """Send the request; answer the server's questions if the client has a session."""
    upstream = rule.upstream
    if upstream is None:
        raise LookupError(f"{rule.name} is not an upstream primitive")
    mirrored = mirrored_arguments(rule)
    async with admitted(upstream):
        for _ in range(MAX_ROUNDS):
            result = await request(
                upstream,
                method,
                params,
                principal=call.principal,
                downstream=downstream,
                mirrored=mirrored,
            )
            if not is_input_required(result):
                return result
            if not downstream.session:
                # A client of 2026-07-28 answers in its next request.
                return bound_state(rule, result)
            params = {**params, **await client_answers(result, downstream)}
    text = f"The upstream server {upstream.name} asked too many questions."
    raise UpstreamProblem("questions", text, Outcome.ERROR)


async def client_answers(result: Json, downstream: Downstream) -> dict[str, Any]:
    """The parameters that continue a call after its questions were asked."""
    requests = result.get("inputRequests") or {}
    found = {}
    for key, asked in requests.items():
        found[key] = await downstream.ask(asked["method"], asked.get("params") or {})
    state = result.get("requestState")
    more = {} if state is None else {"requestState": state}
    return {"inputResponses": found, **more}


def upstream_params(rule: Rule, method: str, params: Json) -> dict[str, Any]:
    """The parameters in the upstream server's names, without the client's own data.

    Raises MCPError for parameters of a wrong type.
    """
    sent: dict[str, Any] = {
        name: params[name]
        for name in FORWARDED.get(method, ())
        if params.get(name) is not None
    }
    if not isinstance(sent.get("arguments", {}), dict):
        raise MCPError(INVALID_PARAMS, "arguments must be an object.")
    if method == "completion/complete":
        sent["ref"] = upstream_reference(rule, params)
    elif method == "resources/read":
        sent["uri"] = params["uri"]
    elif method in NAMES:
        sent[NAMES[method]] = rule.upstream_name
    else:
        raise MCPError(METHOD_NOT_FOUND, f"{method} is not supported for {rule.name}.")
    if "requestState" in sent:
        sent["requestState"] = own_state(rule, sent["requestState"])
    meta = params.get("_meta")
    meta = meta if isinstance(meta, dict) else {}
    kept = {key: meta[key] for key in META_KEYS if isinstance(meta.get(key), str)}
    if meta.get("progressToken") is not None:
        # Its own name of the call: the client's token says nothing there.
        kept["progressToken"] = "portico"
    if kept:
        sent["_meta"] = kept
    return sent


def upstream_reference(rule: Rule, params: Json) -> dict[str, Any]:
    """The `ref` of completion/complete in the upstream server's names."""
    ref = dict(params.get("ref") or {})
    if ref.get("type") == "ref/prompt":
        ref["name"] = rule.upstream_name
    return ref


def bound_state(rule: Rule, result: dict[str, Any]) -> dict[str, Any]:
    """The result whose requestState is bound to the definition that was used.

    The SDK's boundary seals it for the person and the request.
    """
    state = result.get("requestState")
    if not isinstance(state, str):
        return result
    return {**result, "requestState": f"{rule.accepted_hash} {state}"}


def own_state(rule: Rule, state: Any) -> str:
    """The upstream server's own requestState. Raises MCPError for another one."""
    mark, _, own = str(state).partition(" ")
    if mark != rule.accepted_hash:
        text = "The definition changed since the question was asked. Call again."
        raise MCPError(INVALID_PARAMS, text)
    return own


async def credential_rejected(rule: Rule) -> None:
    """Mark the shared credential, so that the admin can show it."""
    upstream = rule.upstream
    if upstream is None or upstream.credential is None:
        return
    state = UpstreamCredential.State.REJECTED
    rows = UpstreamCredential.objects.filter(pk=upstream.credential.pk)
    await in_database(rows.exclude(state=state).update, state=state)
