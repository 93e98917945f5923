"""Public names for `mcp_tools.py` modules: the server and the caller's principal."""

from mcp_bridge.access.context import current_principal
from mcp_bridge.server.portico_server import mcp

__all__ = ["current_principal", "mcp"]
