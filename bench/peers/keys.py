"""An ES256 key pair and one token, for the peers that verify a JWT."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

ISSUER, AUDIENCE = "https://issuer.example", "https://issuer.example/mcp"
FOLDER = Path(os.environ["BENCH_FOLDER"])
PUBLIC = FOLDER / "public.pem"


def make() -> str:
    """Write the public key for the server; returns a token valid for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    PUBLIC.write_bytes(pem)
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "1",
        "client_id": "bench",
    }
    claims |= {"iat": now, "exp": now + 86400, "jti": "a" * 32, "scope": "mcp"}
    return jwt.encode(claims, key, algorithm="ES256", headers={"kid": "one"})


if __name__ == "__main__":
    print(make())
