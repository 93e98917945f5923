"""FastMCP that verifies JWTs: `fastmcp_server.py PORT JWKS ISSUER AUDIENCE`."""

from __future__ import annotations

import sys
from typing import Any

from fastmcp import FastMCP
from fastmcp.server.auth.providers.jwt import JWTVerifier
from fastmcp.server.dependencies import get_access_token

port, jwks, issuer, audience = sys.argv[1:5]
verifier = JWTVerifier(
    jwks_uri=jwks, issuer=issuer, audience=audience, algorithm="ES256", ssrf_safe=False
)
server: Any = FastMCP("strict", auth=verifier)


@server.tool
def who() -> str:
    """Name the person of the token."""
    token = get_access_token()
    return str(token.claims["preferred_username"]) if token else "nobody"


server.run("http", host="127.0.0.1", port=int(port), show_banner=False)
