"""The admin's part about MCP: tools, who may use them, and why."""

from mcp_bridge.admin import (
    access_check,
    access_matrix,
    notices,
    policy_import,
    primitives,
)

__all__ = ["access_check", "access_matrix", "notices", "policy_import", "primitives"]
