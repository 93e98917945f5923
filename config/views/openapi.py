"""/api/schema/: the OpenAPI document of every endpoint programs talk to.

drf-spectacular reads the token endpoints from their serializers (the only importer of
it); the others are no DRF views and are described here, as tables.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

from drf_spectacular.views import SpectacularJSONAPIView

JSON_TYPE, FORM = "application/json", "application/x-www-form-urlencoded"
Document = dict[str, Any]

ERROR = {
    "type": "object",
    "required": ["error", "error_description"],
    "properties": {
        "error": {"type": "string"},
        "error_description": {"type": "string"},
    },
}
TOKEN_ANSWER = {
    "type": "object",
    "required": ["access", "refresh", "token_type", "expires_in", "scope"],
    "properties": {
        "access": {"type": "string"},
        "refresh": {"type": "string"},
        "token_type": {"const": "Bearer"},
        "expires_in": {"type": "integer"},
        "scope": {"type": "string"},
    },
}
MEANINGS = {
    200: "Done.",
    201: "Registered.",
    202: "A notification was taken.",
    302: "To the sign-in page, or back to the client.",
    400: "The request is malformed.",
    401: "The credentials do not count.",
    403: "Not allowed.",
    404: "There is no such session.",
    405: "Not with this method.",
    406: "Accept must name JSON and event streams.",
    413: "The body is too large.",
    415: "Not in this form.",
    421: "The host is not one of ours.",
    429: "Too many; see Retry-After.",
    503: "Nothing can be decided now; see Retry-After.",
}
OPENLY: dict[str, tuple[str, tuple[int, ...]]] = {
    "/healthz": ("The process serves.", (200,)),
    "/readyz": ("Requests can be served, or what is missing.", (200, 503)),
    "/oauth/jwks.json": ("The public keys (RFC 7517).", (200, 503)),
    "/.well-known/oauth-authorization-server": ("RFC 8414.", (200,)),
    "/.well-known/oauth-protected-resource/mcp": ("RFC 9728.", (200,)),
}
"""GET path -> what it tells, statuses."""

FORMS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "/oauth/token": (
        "RFC 6749 3.2; RFC 8628 3.4.",
        "grant_type code redirect_uri code_verifier client_id client_secret "
        "refresh_token device_code scope resource",
        (200, 400, 401),
    ),
    "/oauth/revoke": (
        "RFC 7009.",
        "token token_type_hint client_id client_secret",
        (200, 400, 401),
    ),
    "/oauth/introspect": (
        "RFC 7662.",
        "token token_type_hint client_id client_secret",
        (200, 400, 401, 403),
    ),
    "/oauth/device": (
        "RFC 8628 3.1.",
        "client_id client_secret scope resource",
        (200, 400, 401),
    ),
}
"""POST path -> RFC, fields of the form, statuses."""

ALWAYS = (400, 429, 503)


def answers(*statuses: int, success: Document | None = None) -> Document:
    """The responses of one operation; refusals are RFC 6749 5.2's JSON."""
    told: Document = {}
    for status in sorted({*statuses, *ALWAYS}):
        schema = ERROR if status >= 400 and status != 503 else success or {}
        content = {} if status in (202, 302) else {JSON_TYPE: {"schema": schema}}
        told[str(status)] = {"description": MEANINGS[status], "content": content}
    return told


def reading(text: str, statuses: tuple[int, ...]) -> Document:
    """A GET without parameters."""
    return {"get": {"summary": text, "security": [], "responses": answers(*statuses)}}


def form(text: str, fields: str, statuses: tuple[int, ...]) -> Document:
    """A POST of a form."""
    properties = {name: {"type": "string"} for name in fields.split()}
    schema = {"type": "object", "properties": properties}
    body = {"required": True, "content": {FORM: {"schema": schema}}}
    responses = answers(*statuses)
    return {"post": {"summary": text, "requestBody": body, "responses": responses}}


def query(*names: str) -> list[Document]:
    """Parameters in the URL."""
    kind = {"type": "string"}
    return [{"name": n, "in": "query", "schema": kind} for n in names]


def by_hand() -> Document:
    """Every path that is no DRF view."""
    found = {path: reading(*known) for path, known in OPENLY.items()}
    found |= {path: form(*known) for path, known in FORMS.items()}
    found["/oauth/authorize"] = authorize()
    found["/oauth/register"] = register()
    found["/portal/connect/status"] = {
        "get": {
            "summary": "Whether the signed-in person's client has called yet.",
            "security": [{"session": []}],
            "responses": answers(200, 302, 405),
        }
    }
    found["/mcp"] = mcp()
    return found


def authorize() -> Document:
    """The page a person is sent to."""
    names = (
        "response_type client_id redirect_uri state scope resource code_challenge "
        "code_challenge_method prompt"
    )
    responses = answers(200, 302, 405)
    for status in ("200", "400"):
        responses[status]["content"] = {"text/html": {}}
    return {
        "get": {
            "summary": "Ask a person to sign in and to consent (OAuth 2.1 4.1.1).",
            "parameters": query(*names.split()),
            "responses": responses,
        }
    }


def register() -> Document:
    """Dynamic client registration."""
    uri = {"type": "string", "format": "uri"}
    schema = {
        "type": "object",
        "required": ["redirect_uris"],
        "properties": {
            "redirect_uris": {"type": "array", "items": uri, "minItems": 1},
            "client_name": {"type": "string"},
            "token_endpoint_auth_method": {
                "enum": ["none", "client_secret_basic", "client_secret_post"]
            },
            "grant_types": {"type": "array", "items": {"type": "string"}},
            "scope": {"type": "string"},
        },
    }
    body = {"required": True, "content": {JSON_TYPE: {"schema": schema}}}
    responses = answers(201, 401, 403)
    return {
        "post": {
            "summary": "Register a client (RFC 7591).",
            "requestBody": body,
            "responses": responses,
        }
    }


def mcp() -> Document:
    """The MCP endpoint, Streamable HTTP."""
    message = {
        "type": "object",
        "required": ["jsonrpc", "method"],
        "properties": {
            "jsonrpc": {"const": "2.0"},
            "id": {"type": ["string", "integer"]},
            "method": {"type": "string"},
            "params": {"type": "object"},
        },
    }
    responses = answers(200, 202, 401, 403, 404, 406, 413, 415, 421)
    for told in responses.values():
        if JSON_TYPE in told["content"]:
            told["content"] = {JSON_TYPE: {}, "text/event-stream": {}}
    return {
        "post": {
            "summary": "One JSON-RPC message (MCP Streamable HTTP).",
            "security": [{"bearer": []}],
            "requestBody": {
                "required": True,
                "content": {JSON_TYPE: {"schema": message}},
            },
            "responses": responses,
        }
    }


def complete(result: Document, **known: Any) -> Document:
    """drf-spectacular's hook: add what it cannot see."""
    for path, operations in result["paths"].items():
        for operation in operations.values():
            success = TOKEN_ANSWER if path.endswith(("token/", "refresh/")) else None
            operation["responses"] = answers(200, 401, 415, success=success)
            operation["security"] = []
    result["paths"] |= by_hand()
    for path, operations in result["paths"].items():
        for method, operation in operations.items():
            name = "_".join(path.strip("/").replace(".", "_").split("/"))
            operation["operationId"] = f"{name}_{method}"
    result.setdefault("components", {})["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "session": {"type": "apiKey", "in": "cookie", "name": "sessionid"},
    }
    return result


class SchemaView(SpectacularJSONAPIView):
    """One at a time: drf-spectacular replaces names by classes as it first meets them,
    and a second thread that comes upon it then finds neither.
    """

    lock = Lock()

    def dispatch(self, *args: Any, **kwargs: Any) -> Any:
        """The document."""
        with self.lock:
            return super().dispatch(*args, **kwargs)


schema_view = SchemaView.as_view()
