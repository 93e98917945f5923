"""The MCP server that apps add their tools, resources and prompts to."""

from mcp_bridge.access.context import current_principal
from mcp_bridge.server.portico_server import mcp

__all__ = ["current_principal", "mcp"]
