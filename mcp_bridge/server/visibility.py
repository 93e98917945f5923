"""The SDK's managers, filtered by caller: a hidden primitive does not exist.

Calls, lists, schema look-ups and header validation all use these managers. So a hidden
primitive is answered exactly as an unknown one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from mcp.server.mcpserver.context import Context
from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from mcp.server.mcpserver.prompts import Prompt, PromptManager
from mcp.server.mcpserver.resources import Resource, ResourceManager, ResourceTemplate
from mcp.server.mcpserver.resources.templates import ResourceSecurityError
from mcp.server.mcpserver.tools import Tool, ToolManager
from mcp_types import InputRequiredResult
from pydantic import AnyUrl

from mcp_bridge.access.catalogue import Key
from mcp_bridge.access.context import current_call
from mcp_bridge.access.decision import judge, visible_names
from mcp_bridge.access.narrowed_schemas import narrowed_schema
from mcp_bridge.models import PrimitiveKind

T = TypeVar("T")
KIND_TOOL = str(PrimitiveKind.TOOL)


def is_usable(kind: str, name: str) -> bool:
    """Whether the caller may use it now; always False outside a message."""
    call = current_call()
    if call is None:
        return False
    key = str(kind), name
    if key == call.message.target:
        return call.decision.allowed
    return judge(call.principal, call.catalogue.get(key)).allowed


def visible_items(kind: str, offered: Mapping[str, T]) -> list[T]:
    """The items that the caller's lists show; the cost grows with these alone."""
    call = current_call()
    if call is None:
        return []
    names = visible_names(call.principal, call.catalogue, str(kind))
    return [offered[name] for name in names if name in offered]


def narrowed_tool(tool: Tool) -> Tool:
    """The tool with the limits of the caller's arguments in its input schema."""
    call = current_call()
    rule = call.catalogue.get((KIND_TOOL, tool.name)) if call else None
    if call is None or rule is None or not rule.conditions:
        return tool
    schema = narrowed_schema(tool.parameters, call.principal, rule)
    return tool.model_copy(update={"parameters": schema})


class VisibleTools(ToolManager):
    """Tools that the caller may see."""

    def get_tool(self, name: str) -> Tool | None:
        """The tool; None if it is unknown or hidden."""
        return super().get_tool(name) if is_usable(PrimitiveKind.TOOL, name) else None

    def list_tools(self) -> list[Tool]:
        return [narrowed_tool(t) for t in visible_items(KIND_TOOL, self._tools)]

    def all_tools(self) -> list[Tool]:
        """All registered tools, for the catalogue."""
        return super().list_tools()


class VisiblePrompts(PromptManager):
    """Prompts that the caller may see."""

    def get_prompt(self, name: str) -> Prompt | None:
        """The prompt; None if it is unknown or hidden."""
        return (
            super().get_prompt(name) if is_usable(PrimitiveKind.PROMPT, name) else None
        )

    def list_prompts(self) -> list[Prompt]:
        return visible_items(PrimitiveKind.PROMPT, self._prompts)

    def all_prompts(self) -> list[Prompt]:
        """All registered prompts, for the catalogue."""
        return super().list_prompts()


class VisibleResources(ResourceManager):
    """Resources and templates that the caller may see."""

    def locate(self, uri: str) -> Key | None:
        """(kind, name) of what serves `uri`: a resource, else the first template."""
        if uri in self._resources:
            return str(PrimitiveKind.RESOURCE), uri
        for template in self._templates.values():
            try:
                if template.matches(uri) is not None:
                    kind = str(PrimitiveKind.RESOURCE_TEMPLATE)
                    return kind, template.uri_template
            except ResourceSecurityError:
                return None
        return None

    async def get_resource(
        self, uri: AnyUrl | str, context: Context[Any, Any]
    ) -> Resource | InputRequiredResult:
        """The resource. Raises ResourceNotFoundError if it is unknown or hidden."""
        key = self.locate(str(uri))
        if key is None or not is_usable(*key):
            raise ResourceNotFoundError(f"Unknown resource: {uri}")
        return await super().get_resource(uri, context)

    def list_resources(self) -> list[Resource]:
        return visible_items(PrimitiveKind.RESOURCE, self._resources)

    def list_templates(self) -> list[ResourceTemplate]:
        return visible_items(PrimitiveKind.RESOURCE_TEMPLATE, self._templates)

    def all_resources(self) -> list[Resource]:
        """All registered resources, for the catalogue."""
        return super().list_resources()

    def all_templates(self) -> list[ResourceTemplate]:
        """All registered templates, for the catalogue."""
        return super().list_templates()
