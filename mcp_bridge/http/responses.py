"""Responses of Portico's own at /mcp: challenges (RFC 6750, RFC 9728) and refusals."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from starlette.types import Send

from accounts.http.responses import error_body
from accounts.models.roles import ACT_WITHIN_ROLES


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response: status, JSON body (None: empty) and extra headers."""

    status: int
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    async def send(self, send: Send) -> None:
        """Send it; Cache-Control forbids storing it."""
        content = b"" if self.body is None else json.dumps(self.body).encode()
        headers = {
            "content-length": str(len(content)),
            "cache-control": "no-store",
            **({"content-type": "application/json"} if content else {}),
            **self.headers,
        }
        raw = [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]
        start = {"type": "http.response.start", "status": self.status, "headers": raw}
        await send(start)
        await send({"type": "http.response.body", "body": content})


def metadata_url() -> str:
    """The URL of this resource's metadata (RFC 9728 3.1, path insertion)."""
    return f"{settings.ISSUER_URL}/.well-known/oauth-protected-resource/mcp"


def _challenge(**parameters: str) -> dict[str, str]:
    pairs = ", ".join(f'{name}="{value}"' for name, value in parameters.items())
    return {"www-authenticate": f"Bearer {pairs}"}


def unauthorized(token_sent: bool) -> Response:
    """401; `error` only if a token was sent (RFC 6750 3.1)."""
    metadata = {"resource_metadata": metadata_url(), "scope": ACT_WITHIN_ROLES}
    if not token_sent:
        text = "Send an access token in the Authorization header."
        body = error_body("unauthorized", text)
        return Response(401, body, _challenge(**metadata))
    text = "The access token is invalid, expired or revoked."
    problem = {"error": "invalid_token", "error_description": text}
    body = error_body("invalid_token", text)
    return Response(401, body, _challenge(**problem, **metadata))


def insufficient_scope(scopes: Iterable[str]) -> Response:
    """403 with every scope to ask for, in one challenge (RFC 6750 3.1)."""
    required = " ".join(sorted(scopes))
    problem = {
        "error": "insufficient_scope",
        "error_description": "The access token lacks a scope that this message needs.",
    }
    challenge = _challenge(
        error=problem["error"],
        scope=required,
        resource_metadata=metadata_url(),
        error_description=problem["error_description"],
    )
    body = error_body("insufficient_scope", problem["error_description"])
    return Response(403, {**body, "scope": required}, challenge)


def protocol_error(status: int, code: int, text: str) -> Response:
    """A JSON-RPC error without a request id."""
    error = {"code": code, "message": text}
    return Response(status, {"jsonrpc": "2.0", "id": None, "error": error})


def json_error(status: int, error: str, text: str, **headers: str) -> Response:
    """An error outside JSON-RPC, in the form of RFC 6749 5.2."""
    return Response(status, error_body(error, text), headers)


def unavailable() -> Response:
    """503: the database is unavailable, so nothing can be decided."""
    text = "The database cannot be reached; nothing was decided."
    return json_error(503, "temporarily_unavailable", text, **{"retry-after": "5"})


def method_not_allowed() -> Response:
    """405: without sessions there is no stream to open and no session to end."""
    text = "Without sessions, only POST is served here."
    return json_error(405, "invalid_request", text, allow="POST")


def too_large() -> Response:
    text = f"The body is larger than {settings.MAX_BODY_SIZE} bytes."
    return json_error(413, "invalid_request", text)


def body_timeout() -> Response:
    """408; it closes the connection, because the rest of the body may still come."""
    text = f"The body did not arrive within {settings.BODY_TIMEOUT:g} s."
    return json_error(408, "request_timeout", text, connection="close")
