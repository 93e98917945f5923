"""`greet`, and copies of it: BENCH_TOOLS tools in total."""

from __future__ import annotations

from bench.peers.tools import greet, more_names
from mcp_bridge.server import mcp

mcp.tool(scopes=["User.Read"])(greet)
for number, name in enumerate(more_names()):
    scope = "User.Read" if number % 100 == 0 else "User.Write"
    mcp.tool(name=name, scopes=[scope])(greet)
