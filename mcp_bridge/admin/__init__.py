"""Admin pages of MCP: primitives, access matrix, access check."""

from mcp_bridge.admin import (
    access_check,
    access_matrix,
    first_steps,
    notices,
    policy_import,
    primitives,
    search,
)
from mcp_bridge.admin.upstreams import review, servers

__all__ = [
    "access_check",
    "access_matrix",
    "first_steps",
    "notices",
    "policy_import",
    "primitives",
    "review",
    "search",
    "servers",
]
