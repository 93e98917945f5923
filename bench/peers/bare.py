"""The official SDK's `MCPServer` without authorization."""

from __future__ import annotations

import os
from typing import Any

from mcp.server.mcpserver import MCPServer

from bench.peers.tools import greet, more_names


def served(**options: Any) -> Any:
    """The SDK's own ASGI application with the benchmark's tools."""
    server = MCPServer("bench", log_level="WARNING", **options)
    server.tool()(greet)
    for name in more_names():
        server.tool(name=name)(greet)
    stateless = os.getenv("BENCH_SESSIONS", "off") == "off"
    return server.streamable_http_app(json_response=True, stateless_http=stateless)


app = served()
