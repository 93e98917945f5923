"""`MCPServer` behind the SDK's bearer auth, with a JWT verifier."""

from __future__ import annotations

from typing import Any

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from pydantic import AnyHttpUrl

from bench.peers.bare import served
from bench.peers.keys import AUDIENCE, ISSUER, PUBLIC


class Verifier:
    """Checks signature, issuer, audience and time. It parses the key once."""

    def __init__(self) -> None:
        self.key: Any = load_pem_public_key(PUBLIC.read_bytes())

    async def verify_token(self, token: str) -> AccessToken | None:
        """The SDK's protocol `TokenVerifier`."""
        try:
            claims = jwt.decode(
                token, self.key, algorithms=["ES256"], audience=AUDIENCE, issuer=ISSUER
            )
        except jwt.PyJWTError:
            return None
        return AccessToken(
            token=token,
            client_id=claims["client_id"],
            scopes=claims["scope"].split(),
            expires_at=claims["exp"],
            resource=AUDIENCE,
        )


app = served(
    token_verifier=Verifier(),
    auth=AuthSettings(
        issuer_url=AnyHttpUrl(ISSUER),
        resource_server_url=AnyHttpUrl(AUDIENCE),
        required_scopes=["mcp"],
        validate_token_resource=True,
    ),
)
