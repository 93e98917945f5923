"""FastMCP's proxy to the bare server, without authorization."""

from __future__ import annotations

import os

from fastmcp.server import create_proxy

server = create_proxy(os.environ["BENCH_UPSTREAM"])
app = server.http_app(path="/mcp", json_response=True, stateless_http=True)
