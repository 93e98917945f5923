"""The admin's part about MCP: tools, who may use them, and why."""

from mcp_bridge.admin import check, matrix, notices, policy, primitives

__all__ = ["check", "matrix", "notices", "policy", "primitives"]
