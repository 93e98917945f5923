"""A real OpenID provider over HTTP: discovery, code with PKCE, tokens, userinfo.

OpenID Connect Core 1.0, RFC 7636. `person` is the signed-in user's claims.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT_ID, CLIENT_SECRET = "portico", "a secret between the two"
KEY = rsa.generate_private_key(65537, 2048)


class OidcProvider:
    """Its state; `url` is its issuer."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.person: dict[str, Any] = {"sub": "nobody"}
        self.codes: dict[str, dict[str, str]] = {}
        self.access: dict[str, dict[str, Any]] = {}
        self.broken = False
        self.userinfo: dict[str, Any] = {}
        """Claims of UserInfo that differ from the ID token."""
        self.unsigned = False
        self.calls_itself = url

    def honest(self) -> None:
        """Reset: the same claims everywhere, signed."""
        self.broken = self.unsigned = False
        self.userinfo, self.calls_itself = {}, self.url

    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.calls_itself,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "jwks_uri": f"{self.url}/jwks",
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
        }

    def authorize(self, query: dict[str, str]) -> str:
        """Redirect back with a code: the user has agreed."""
        assert query["client_id"] == CLIENT_ID and query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256", "PKCE, please"
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        back = {"code": code, "state": query["state"]}
        return f"{query['redirect_uri']}?{urlencode(back)}"

    def token(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """A code once, by the client that asked, with its verifier."""
        grant = self.codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        known = form.get("client_secret") == CLIENT_SECRET
        if not grant or not known or challenge != grant["code_challenge"]:
            return 400, {"error": "invalid_grant"}
        raw = secrets.token_urlsafe(16)
        self.access[raw] = {**self.person, **self.userinfo}
        now = int(time.time())
        issuer = self.calls_itself
        claims = {"iss": issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 60}
        key: Any = None if self.unsigned else KEY
        algorithm = "none" if self.unsigned else "RS256"
        signed = jwt.encode(
            {**self.person, **claims}, key, algorithm, headers={"kid": "k1"}
        )
        response = {"access_token": raw, "token_type": "Bearer", "id_token": signed}
        return 200, response


class Handler(http.server.BaseHTTPRequestHandler):
    provider: OidcProvider

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        if self.provider.broken:
            self.send_error(500)
        elif parts.path == "/.well-known/openid-configuration":
            self.told(200, self.provider.discovery())
        elif parts.path == "/authorize":
            self.send_response(302)
            self.send_header("location", self.provider.authorize(query))
            self.end_headers()
        else:
            raw = self.headers.get("authorization", "").removeprefix("Bearer ")
            claims = self.provider.access.get(raw)
            self.told(200 if claims else 401, claims or {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        self.told(*self.provider.token({k: v[0] for k, v in parse_qs(body).items()}))

    def told(self, status: int, data: dict[str, Any]) -> None:
        content = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def oidc_provider() -> Iterator[OidcProvider]:
    """A provider on a free port."""
    own = type("OwnHandler", (Handler,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), own)
    running = OidcProvider(f"http://127.0.0.1:{server.server_port}")
    own.provider = running  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
