"""FastMCP with its JWT verifier."""

from __future__ import annotations

import os

from fastmcp import FastMCP
from fastmcp.server.auth.providers.jwt import JWTVerifier

from bench.peers.keys import AUDIENCE, ISSUER, PUBLIC
from bench.peers.tools import greet

server: FastMCP = FastMCP(
    "bench",
    auth=JWTVerifier(
        public_key=PUBLIC.read_text(),
        issuer=ISSUER,
        audience=AUDIENCE,
        algorithm="ES256",
        required_scopes=["mcp"],
    ),
)
server.tool(greet)
stateless = os.getenv("BENCH_SESSIONS", "off") == "off"
app = server.http_app(path="/mcp", json_response=True, stateless_http=stateless)
