"""Upstream primitives in lists, as their definitions were accepted.

The SDK's model of a definition is built once, so 500 upstream tools cost no more than
500 tools of the code. Listing contacts no server.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, TypeVar

from mcp_types import Prompt, Resource, ResourceTemplate, Tool
from pydantic import BaseModel, ValidationError

from accounts.tokens.principal import Principal
from mcp_bridge.access.catalogue import Key, Rule
from mcp_bridge.access.context import current_call
from mcp_bridge.access.decision import visible
from mcp_bridge.access.narrowed_schemas import narrowed_schema
from mcp_bridge.models import PrimitiveKind

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)

KINDS: Mapping[type[BaseModel], str] = {
    Tool: str(PrimitiveKind.TOOL),
    Resource: str(PrimitiveKind.RESOURCE),
    ResourceTemplate: str(PrimitiveKind.RESOURCE_TEMPLATE),
    Prompt: str(PrimitiveKind.PROMPT),
}
MAX_BUILT = 50_000

_built: dict[Key, tuple[Mapping[str, Any], BaseModel | None]] = {}
"""(kind, name) -> the accepted definition and its model; None if it is not valid."""


def upstream_items(model: type[M]) -> list[M]:
    """The upstream primitives of a kind that the caller's lists show."""
    call = current_call()
    if call is None:
        return []
    principal, kind = call.principal, KINDS[model]
    items = []
    for rule in call.catalogue.requiring(kind, principal.grants):
        if rule.definition is not None and visible(principal, rule):
            item = built(model, rule, rule.definition)
            if item is not None:
                items.append(narrowed(item, principal, rule))
    return items


def narrowed(item: M, principal: Principal, rule: Rule) -> M:
    """A tool with the limits of this caller's arguments in its schema."""
    if not rule.conditions or not isinstance(item, Tool):
        return item
    schema = narrowed_schema(item.input_schema, principal, rule)
    return item.model_copy(update={"input_schema": schema})


def built(model: type[M], rule: Rule, definition: Mapping[str, Any]) -> M | None:
    """The model of an accepted definition; None if the SDK does not accept it."""
    known = _built.get(rule.key)
    if known is None or known[0] is not definition:
        if len(_built) >= MAX_BUILT:
            _built.clear()
        known = _built[rule.key] = definition, _build(model, rule, definition)
    return known[1]  # type: ignore[return-value]


def _build(model: type[M], rule: Rule, definition: Mapping[str, Any]) -> M | None:
    try:
        return model.model_validate(definition, by_name=False)
    except (ValidationError, RecursionError):
        logger.warning("The accepted definition of %s %s is not valid", *rule.key)
        return None
