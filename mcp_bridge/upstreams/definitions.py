"""Offers of an upstream server: its definitions, checked and under Portico's names."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import mcp_types as types
from mcp.shared.inbound import find_invalid_x_mcp_header, x_mcp_header_map
from pydantic import BaseModel, ValidationError

from accounts.parsing.text import one_line
from mcp_bridge.access.catalogue import Key, Rule
from mcp_bridge.models import Offer, PrimitiveKind, UpstreamServer
from mcp_bridge.models.upstream_servers import SEPARATOR

LONGEST_NAME = 64
"""Characters; several clients refuse longer names of tools."""
LARGEST = 64 * 1024
"""Bytes of one definition."""
LONGEST_URI = 246
"""Characters; the scope `resource:URI` has at most 255."""
SAFE = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)

NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""An escaped NUL, which PostgreSQL does not store."""

MODELS: Mapping[str, tuple[type[BaseModel], str]] = {
    PrimitiveKind.TOOL: (types.Tool, "name"),
    PrimitiveKind.PROMPT: (types.Prompt, "name"),
    PrimitiveKind.RESOURCE: (types.Resource, "uri"),
    PrimitiveKind.RESOURCE_TEMPLATE: (types.ResourceTemplate, "uriTemplate"),
}
"""Kind -> the SDK's model, and the member that names the primitive."""

Mirrored = Mapping[tuple[str, ...], str]
"""Path of an argument -> the header that repeats it (SEP-2243)."""
MAX_MIRRORED = 50_000

_mirrored: dict[Key, tuple[Mapping[str, Any], Mirrored]] = {}
"""(kind, name) -> the accepted definition and its headers: a schema is walked once."""


def mirrored_arguments(rule: Rule) -> Mirrored:
    """The arguments of an upstream tool that headers repeat; empty for most tools."""
    definition = rule.definition
    if definition is None:
        return {}
    known = _mirrored.get(rule.key)
    if known is None or known[0] is not definition:
        if len(_mirrored) >= MAX_MIRRORED:
            _mirrored.clear()
        schema = definition.get("inputSchema")
        found = x_mcp_header_map(schema) if isinstance(schema, dict) else {}
        known = _mirrored[rule.key] = definition, found
    return known[1]


def shown_name(prefix: str, name: str) -> str:
    """The name of a tool or prompt: PREFIX__NAME; shortened with a hash if needed."""
    full = f"{prefix}{SEPARATOR}{name}" if prefix else name
    if SAFE.fullmatch(full):
        return full
    mark = hashlib.sha256(full.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    clean = re.sub(r"[^A-Za-z0-9_-]+", "_", full)[: LONGEST_NAME - 9]
    return f"{clean}_{mark}"


def offer_of(server: UpstreamServer, kind: str, item: Any) -> Offer:
    """The offer of one listed item; `problem` says why it cannot be served."""
    model, key = MODELS[kind]
    shown = dict(item) if isinstance(item, dict) else {}
    own_name = shown.get(key)
    own_name = own_name if isinstance(own_name, str) else ""
    name = own_name
    if kind in (PrimitiveKind.TOOL, PrimitiveKind.PROMPT) and own_name:
        shown["name"] = name = shown_name(server.prefix, own_name)
    text = canonical_bytes(shown)
    if not text or NUL.search(text):
        shown = {}
        problem = "It has characters that cannot be stored, or is nested too deeply."
    else:
        problem = known_problem(kind, model, own_name, shown, text)
    description = shown.get("description")
    offer = Offer(
        kind=str(kind),
        name=one_line(name)[:200] if problem else name,
        title=one_line(title_of(shown)),
        description=str(description)[:LARGEST].strip() if description else "",
        scopes=(),
        sensitive=False,
        definition=hashlib.sha256(text).hexdigest(),
        shown=shown if len(text) <= LARGEST else {},
        upstream_name=one_line(own_name, 2048) if problem else own_name,
    )
    return offer.unusable(problem) if problem else offer


def canonical_bytes(shown: Mapping[str, Any]) -> bytes:
    """JSON with sorted keys; empty if it is no JSON that can be stored."""
    try:
        text = json.dumps(shown, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (RecursionError, ValueError):
        return b""


def title_of(shown: Mapping[str, Any]) -> str:
    """The title: its own, or that of a tool's annotations."""
    annotations = shown.get("annotations")
    hint = annotations.get("title") if isinstance(annotations, dict) else ""
    return str(shown.get("title") or hint or "")


MAX_CHECKED = 20_000
_checked: dict[bytes, str] = {}
"""Hash of a kind, a name and a definition -> why it cannot be served, or nothing."""


def known_problem(
    kind: str, model: type[BaseModel], name: str, shown: Mapping[str, Any], text: bytes
) -> str:
    """`definition_problem`, once for each definition: a check takes 10 ms and more."""
    head = f"{kind}\0{name}\0".encode("utf-8", "surrogatepass")
    key = hashlib.sha256(head + text).digest()
    problem = _checked.get(key)
    if problem is None:
        if len(_checked) >= MAX_CHECKED:
            _checked.clear()
        problem = definition_problem(kind, model, name, shown, len(text))
        _checked[key] = problem
    return problem


def definition_problem(
    kind: str, model: type[BaseModel], name: str, shown: Mapping[str, Any], size: int
) -> str:
    """Why a definition cannot be served; empty if it can."""
    if not name:
        return "It has no name."
    if size > LARGEST:
        return f"Its definition is larger than {LARGEST // 1024} KB."
    if len(name) > 2048 or not name.isprintable():
        return "Its name has characters that cannot be shown, or is too long."
    uris = (PrimitiveKind.RESOURCE, PrimitiveKind.RESOURCE_TEMPLATE)
    if kind in uris and len(name) > LONGEST_URI:
        return f"Its URI is longer than {LONGEST_URI} characters."
    try:
        model.model_validate(shown, by_name=False)
    except (ValidationError, RecursionError) as error:
        return f"It does not follow the MCP specification: {first_error(error)}"
    return schema_problem(shown) if kind == PrimitiveKind.TOOL else ""


def schema_problem(shown: Mapping[str, Any]) -> str:
    """Why a schema of a tool is not valid; empty if both are."""
    # Late imports: 2 MB, which only a look at an upstream server needs.
    from jsonschema.exceptions import SchemaError  # type: ignore[import-untyped]
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]

    for key in ("inputSchema", "outputSchema"):
        schema = shown.get(key)
        if schema is None:
            continue
        try:
            validator_for(schema).check_schema(schema)
        except (SchemaError, RecursionError) as error:
            return f"{key} is not a valid JSON Schema: {first_error(error)}"
    found = find_invalid_x_mcp_header(shown.get("inputSchema"))
    return f"inputSchema: {found}" if found else ""


def first_error(error: Exception) -> str:
    """The first error of a validation, on one line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return one_line(f"{where}: {first['msg']}", 300)
    return one_line(getattr(error, "message", "") or str(error), 300)
