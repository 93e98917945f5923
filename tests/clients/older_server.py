"""A server of mcp 1.x: `older_server.py PORT [stateless] [json]`."""

from __future__ import annotations

import sys
from typing import Any

from mcp.server.fastmcp import Context, FastMCP

server: Any = FastMCP(
    "older",
    port=int(sys.argv[1]),
    log_level="ERROR",
    stateless_http="stateless" in sys.argv,
    json_response="json" in sys.argv,
)


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
async def count(to: int, ctx: Context) -> str:  # type: ignore[type-arg]
    """Report progress `to` times."""
    for step in range(to):
        await ctx.report_progress(step + 1, to)
    return f"counted to {to}"


server.run("streamable-http")
