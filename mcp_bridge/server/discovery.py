"""Discovery: find the primitives in every app's `mcp_tools.py`, sync them into rows."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

import mcp_types
from django.apps import apps
from django.conf import settings
from django.db import IntegrityError
from django.utils.module_loading import autodiscover_modules
from mcp.server.mcpserver.prompts import Prompt
from mcp.server.mcpserver.resources import Resource, ResourceTemplate
from mcp.server.mcpserver.tools import Tool
from pydantic import BaseModel

from accounts.management.errors import BrokenApp, app_remedy
from mcp_bridge.models import Offer, Primitive, PrimitiveKind, summary
from mcp_bridge.server.portico_server import PorticoServer, mcp, refuse_long_scopes

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""Workers that start together may insert the same row; the loser syncs once more."""


def autodiscover() -> PorticoServer:
    """Import `mcp_tools` of every installed app, as the admin imports `admin`.

    Raises BrokenApp, with the file, the line and the fix.
    """
    try:
        autodiscover_modules("mcp_tools")
    except Exception as error:
        text = app_remedy(error)
        if not text:
            raise
        raise BrokenApp(text) from error
    return mcp


def silent_apps() -> list[tuple[str, str]]:
    """(app, similar file) of the apps in EXTRA_APPS that offer nothing.

    The similar file is a misspelled `mcp_tools.py`; empty if there is none.
    """
    server = autodiscover()
    offering = {module.partition(":")[0] for module in server.places.values()}
    found = []
    for config in apps.get_app_configs():
        extra = {config.name, f"{type(config).__module__}.{type(config).__name__}"}
        if not extra & set(settings.EXTRA_APPS):
            continue
        if not any(name.startswith(f"{config.name}.") for name in offering):
            names = [path.name for path in Path(config.path).glob("*.py")]
            similar = get_close_matches("mcp_tools.py", names, cutoff=0.7)
            found.append((config.name, similar[0] if similar else ""))
    return found


def offers(server: PorticoServer) -> Iterator[Offer]:
    """Everything registered with `server`, visible to the caller or not."""
    for tool in server.tools.all_tools():
        yield _offer(server, PrimitiveKind.TOOL, tool.name, shown_tool(tool))
    for resource in server.resources.all_resources():
        shown = shown_resource(resource)
        yield _offer(server, PrimitiveKind.RESOURCE, str(resource.uri), shown)
    for template in server.resources.all_templates():
        kind, name = PrimitiveKind.RESOURCE_TEMPLATE, template.uri_template
        yield _offer(server, kind, name, shown_template(template))
    for prompt in server.prompts.all_prompts():
        yield _offer(server, PrimitiveKind.PROMPT, prompt.name, shown_prompt(prompt))


def shown_tool(tool: Tool) -> mcp_types.Tool:
    """The tool in a list, as the SDK's list_tools() makes it."""
    return mcp_types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.parameters,
        output_schema=tool.output_schema,
        annotations=tool.annotations,
        icons=tool.icons,
        _meta=tool.meta,
    )


def shown_resource(resource: Resource) -> mcp_types.Resource:
    """The resource in a list, as the SDK's list_resources() makes it."""
    return mcp_types.Resource(
        uri=resource.uri,
        name=resource.name or "",
        title=resource.title,
        description=resource.description,
        mime_type=resource.mime_type,
        icons=resource.icons,
        annotations=resource.annotations,
        _meta=resource.meta,
    )


def shown_template(template: ResourceTemplate) -> mcp_types.ResourceTemplate:
    """The template in a list, as the SDK's list_resource_templates() makes it."""
    return mcp_types.ResourceTemplate(
        uri_template=template.uri_template,
        name=template.name,
        title=template.title,
        description=template.description,
        mime_type=template.mime_type,
        icons=template.icons,
        annotations=template.annotations,
        _meta=template.meta,
    )


def shown_prompt(prompt: Prompt) -> mcp_types.Prompt:
    """The prompt in a list, as the SDK's list_prompts() makes it."""
    arguments = [
        mcp_types.PromptArgument(
            name=one.name, description=one.description, required=one.required
        )
        for one in prompt.arguments or []
    ]
    return mcp_types.Prompt(
        name=prompt.name,
        title=prompt.title,
        description=prompt.description,
        arguments=arguments,
        icons=prompt.icons,
    )


def _offer(server: PorticoServer, kind: str, name: str, shown: BaseModel) -> Offer:
    scopes, sensitive = server.access.get((str(kind), name), ((), False))
    refuse_long_scopes(kind, name, scopes)  # the SDK's own methods register, too
    wire = shown.model_dump(mode="json", by_alias=True, exclude_none=True)
    text = json.dumps(wire, sort_keys=True)
    return Offer(
        kind=str(kind),
        name=name,
        title=wire.get("title", ""),
        description=wire.get("description", "").strip(),
        scopes=scopes,
        sensitive=sensitive,
        definition=hashlib.sha256(text.encode()).hexdigest(),
        shown=wire,
    )


def sync() -> dict[str, int]:
    """Update the Primitive rows from the code. Returns the non-zero counts."""
    offered = list(offers(autodiscover()))
    attempts, hold = 0, settings.DEFINITIONS_FROM_CODE == "hold"
    while True:
        try:
            counts = summary(Primitive.objects.sync(offered, hold=hold))
            break
        except IntegrityError:
            attempts += 1
            if attempts == ATTEMPTS:
                raise
    if counts:
        logger.info("Catalogue synced: %s", counts)
    return counts
