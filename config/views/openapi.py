"""/api/schema/: the OpenAPI document of every endpoint for programs.

drf-spectacular describes the token endpoints and the administration API from their
serializers. The others are not DRF views, so tables in this module describe them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any

from django.http import HttpResponse
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.views import SpectacularJSONAPIView
from rest_framework.renderers import JSONRenderer

from accounts.admin_api.views import documented
from accounts.http.responses import ADMIN_API_PATH, PROBLEM_TYPE

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
PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "detail"],
                "properties": {
                    "field": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}
"""RFC 9457."""
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
    202: "The notification was accepted.",
    302: "To the sign-in page, or back to the client.",
    400: "The request is malformed.",
    401: "The credentials are not valid.",
    403: "Not allowed.",
    404: "It does not exist.",
    405: "The method is not allowed.",
    409: "Other rows, or a change at the same moment, prevent it.",
    412: "The row has changed since it was read.",
    406: "Accept must name JSON and event streams.",
    413: "The body is too large.",
    415: "The media type is not supported.",
    421: "The host is not in ALLOWED_HOSTS.",
    429: "Too many requests; see Retry-After.",
    503: "A required service is not available; see Retry-After.",
}
PUBLIC_GETS: dict[str, tuple[str, tuple[int, ...]]] = {
    "/healthz": ("The process serves requests.", (200,)),
    "/readyz": (
        "Whether requests can be served, or what is not ready.",
        (200, 503),
    ),
    "/oauth/jwks.json": ("The public keys (RFC 7517).", (200, 503)),
    "/.well-known/oauth-authorization-server": ("RFC 8414.", (200,)),
    "/.well-known/oauth-protected-resource/mcp": ("RFC 9728.", (200,)),
}
"""GET path -> summary, statuses."""

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
"""POST path -> RFC, form fields, statuses."""

ALWAYS = (400, 429, 503)


def answers(*statuses: int, success: Document | None = None) -> Document:
    """The responses of one operation; errors are JSON (RFC 6749 5.2)."""
    responses: Document = {}
    for status in sorted({*statuses, *ALWAYS}):
        schema = ERROR if status >= 400 and status != 503 else success or {}
        content = {} if status in (202, 302) else {JSON_TYPE: {"schema": schema}}
        responses[str(status)] = {"description": MEANINGS[status], "content": content}
    return responses


def reading(text: str, statuses: tuple[int, ...]) -> Document:
    """A GET operation without parameters."""
    return {"get": {"summary": text, "security": [], "responses": answers(*statuses)}}


def form(text: str, fields: str, statuses: tuple[int, ...]) -> Document:
    """A POST operation with a form."""
    properties = {name: {"type": "string"} for name in fields.split()}
    schema = {"type": "object", "properties": properties}
    body = {"required": True, "content": {FORM: {"schema": schema}}}
    responses = answers(*statuses)
    return {"post": {"summary": text, "requestBody": body, "responses": responses}}


def query(*names: str) -> list[Document]:
    kind = {"type": "string"}
    return [{"name": n, "in": "query", "schema": kind} for n in names]


def by_hand() -> Document:
    """Every path that is not a DRF view."""
    paths = {path: reading(*known) for path, known in PUBLIC_GETS.items()}
    paths |= {path: form(*known) for path, known in FORMS.items()}
    paths["/oauth/authorize"] = authorize()
    paths["/oauth/register"] = register()
    paths["/portal/connect/status"] = {
        "get": {
            "summary": "Whether the signed-in person's client has called yet.",
            "security": [{"session": []}],
            "responses": answers(200, 302, 405),
        }
    }
    paths["/mcp"] = mcp()
    return paths


def authorize() -> Document:
    """The page that a client opens in the person's browser."""
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
    for response in responses.values():
        if JSON_TYPE in response["content"]:
            response["content"] = {JSON_TYPE: {}, "text/event-stream": {}}
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


def administration(operation: Document) -> None:
    """Add the errors of the administration API, which all operations share."""
    for status in (400, 401, 403, 404, 405, 409, 412, 415, 429, 503):
        content = {PROBLEM_TYPE: {"schema": PROBLEM}}
        described = {"description": MEANINGS[status], "content": content}
        operation["responses"].setdefault(str(status), described)
    operation["security"] = [{"personal": []}]


def complete(result: Document, **known: Any) -> Document:
    """drf-spectacular's hook: add the paths and responses that it cannot find."""
    for path, operations in result["paths"].items():
        for operation in operations.values():
            if path.startswith(ADMIN_API_PATH):
                administration(operation)
                continue
            success = TOKEN_ANSWER if path.endswith(("token/", "refresh/")) else None
            operation["responses"] = answers(200, 401, 415, success=success)
            operation["security"] = []
    result["paths"] |= by_hand()
    for path, operations in result["paths"].items():
        for method, operation in operations.items():
            if path.startswith(ADMIN_API_PATH):
                continue
            name = "_".join(path.strip("/").replace(".", "_").split("/"))
            operation["operationId"] = f"{name}_{method}"
    result.setdefault("components", {})["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "personal": {
            "type": "http",
            "scheme": "bearer",
            "description": "A personal token with the scope portico:admin.",
        },
        "session": {"type": "apiKey", "in": "cookie", "name": "sessionid"},
    }
    return result


LOCK = Lock()
"""drf-spectacular replaces names by classes when it first uses them. A second thread
that reads them at that moment would fail."""


@cache
def built() -> Document:
    found: Document = SchemaGenerator().get_schema(request=None, public=True)
    return found


def document() -> Document:
    """The document. It depends on the code alone, so it is built once."""
    with LOCK:
        return built()


@cache
def rendered(renderer: Callable[[], JSONRenderer]) -> bytes:
    """The document as this class of renderer writes it: 2.6 MB, for all requests."""
    text: bytes = renderer().render(document(), renderer_context={})
    return text


class SchemaView(SpectacularJSONAPIView):
    """GET /api/schema/."""

    @documented(exclude=True)
    def get(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        """REST framework's own response would stay until the garbage collection."""
        media_type = request.accepted_renderer.media_type
        kind: Callable[[], JSONRenderer] = type(request.accepted_renderer)
        return HttpResponse(rendered(kind), content_type=media_type)


schema_view = SchemaView.as_view()
