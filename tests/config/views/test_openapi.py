"""The OpenAPI document: its operations, and one thread at a time that builds it."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.urls import resolve
from drf_spectacular.generators import SchemaGenerator
from rest_framework.test import APIRequestFactory

from accounts.http.responses import ADMIN_API_PATH
from config.views.openapi import (
    ERROR,
    FORMS,
    MEANINGS,
    PUBLIC_GETS,
    TOKEN_ANSWER,
    built,
    rendered,
    schema_view,
)

pytestmark = pytest.mark.once
READERS = 4


def test_two_parallel_first_requests_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """drf-spectacular breaks if two threads prepare its extensions."""
    inside, most = list[None](), list[int]()

    def put_together(*_args: Any, **_kwargs: Any) -> dict[str, Any]:
        inside.append(None)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        return {}

    monkeypatch.setattr(SchemaGenerator, "get_schema", put_together)
    built.cache_clear()
    rendered.cache_clear()
    start = threading.Barrier(READERS)

    def read(_number: int) -> int:
        start.wait(5)
        return int(schema_view(APIRequestFactory().get("/api/schema/")).status_code)

    with ThreadPoolExecutor(READERS) as pool:
        assert list(pool.map(read, range(READERS))) == [200] * READERS
    built.cache_clear()
    rendered.cache_clear()
    assert most == [1]


@pytest.mark.parametrize(
    "accept", ["application/json", "application/vnd.oai.openapi+json"]
)
def test_requests_share_one_copy_of_the_text(accept: str) -> None:
    """It takes 2.6 MB, and any client may ask for it many times at once."""
    asked = APIRequestFactory().get("/api/schema/", headers={"accept": accept})
    answers = [schema_view(asked) for _ in range(2)]
    assert answers[0].content is answers[1].content
    assert {answer["content-type"] for answer in answers} == {accept}
    assert json.loads(answers[0].content)["openapi"] == "3.1.0"


OUTSIDE_DJANGO = {"/mcp", "/.well-known/oauth-protected-resource/mcp"}
OAUTH = (400, 401, 429, 503)
TOKEN = (200, 400, 401, 415, 429, 503)
DOCUMENTED: dict[tuple[str, str], tuple[int, ...]] = {
    ("get", "/healthz"): (200, 400, 429, 503),
    ("get", "/readyz"): (200, 400, 429, 503),
    ("get", "/oauth/jwks.json"): (200, 400, 429, 503),
    ("get", "/.well-known/oauth-authorization-server"): (200, 400, 429, 503),
    ("get", "/.well-known/oauth-protected-resource/mcp"): (200, 400, 429, 503),
    ("post", "/oauth/token"): (200, *OAUTH),
    ("post", "/oauth/revoke"): (200, *OAUTH),
    ("post", "/oauth/introspect"): (200, 400, 401, 403, 429, 503),
    ("post", "/oauth/device"): (200, *OAUTH),
    ("get", "/oauth/authorize"): (200, 302, 400, 405, 429, 503),
    ("post", "/oauth/register"): (201, 400, 401, 403, 429, 503),
    ("get", "/portal/connect/status"): (200, 302, 400, 405, 429, 503),
    ("post", "/mcp"): (*(200, 202, 400, 401, 403, 404, 406, 413, 415, 421, 429, 503),),
    ("post", "/api/token/"): TOKEN,
    ("post", "/api/token/refresh/"): TOKEN,
    ("post", "/api/token/verify/"): TOKEN,
    ("post", "/api/token/blacklist/"): TOKEN,
}
"""Operation -> its statuses."""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    response = schema_view(APIRequestFactory().get("/api/schema/"))
    found: dict[str, Any] = json.loads(response.content)
    return found


def operations(document: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """Without /api/v1/: tests/accounts/admin_api/test_document.py reads that part."""
    return {
        (method, path): operation
        for path, methods in document["paths"].items()
        if not path.startswith(ADMIN_API_PATH)
        for method, operation in methods.items()
    }


def test_every_operation_has_its_statuses(document: dict[str, Any]) -> None:
    """RFC 6749 5.2 and its relatives; clients are generated from this."""
    found = {
        key: tuple(sorted(map(int, operation["responses"])))
        for key, operation in operations(document).items()
    }
    assert found == DOCUMENTED


def test_every_path_is_served(document: dict[str, Any]) -> None:
    for path in document["paths"].keys() - OUTSIDE_DJANGO:
        resolve(path.replace("{id}", "1").replace("{jti}", "x"))


def test_every_operation_has_an_id_of_its_own(document: dict[str, Any]) -> None:
    names = [one["operationId"] for one in operations(document).values()]
    assert len(set(names)) == len(names)
    assert {"_well-known_oauth-authorization-server_get", "mcp_post"} <= set(names)


def test_only_mcp_and_the_portal_need_credentials(document: dict[str, Any]) -> None:
    needed = {
        path: one["security"]
        for (_method, path), one in operations(document).items()
        if one.get("security")
    }
    assert needed == {
        "/mcp": [{"bearer": []}],
        "/portal/connect/status": [{"session": []}],
    }
    assert document["components"]["securitySchemes"] == {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "personal": {
            "type": "http",
            "scheme": "bearer",
            "description": "A personal token with the scope portico:admin.",
        },
        "session": {"type": "apiKey", "in": "cookie", "name": "sessionid"},
    }
    found = operations(document)
    assert "security" not in found["post", "/oauth/token"]
    # An empty list: generated clients send none of the document's credentials.
    for path in ("/api/token/", "/api/token/refresh/", "/api/token/verify/"):
        assert found["post", path]["security"] == [], path


def content(document: dict[str, Any], key: tuple[str, str], status: int) -> Any:
    return operations(document)[key]["responses"][str(status)]["content"]


def test_errors_are_json_with_a_code(document: dict[str, Any]) -> None:
    key = ("post", "/oauth/token")
    for status in OAUTH[:3]:
        schema = content(document, key, status)["application/json"]["schema"]
        assert schema == ERROR
    assert list(ERROR["required"]) == ["error", "error_description"]
    assert content(document, key, 200) == {"application/json": {"schema": {}}}
    assert content(document, key, 503) == {"application/json": {"schema": {}}}


def test_tokens_are_described_where_they_are_issued(document: dict[str, Any]) -> None:
    described = {
        path
        for (method, path) in DOCUMENTED
        if path.startswith("/api/")
        and content(document, (method, path), 200)["application/json"]["schema"]
        == TOKEN_ANSWER
    }
    assert described == {"/api/token/", "/api/token/refresh/"}
    assert set(TOKEN_ANSWER["required"]) == set(TOKEN_ANSWER["properties"])
    fields: Any = TOKEN_ANSWER["properties"]
    assert fields["token_type"] == {"const": "Bearer"}


def test_pages_and_streams_have_their_types(document: dict[str, Any]) -> None:
    page = ("get", "/oauth/authorize")
    assert (
        content(document, page, 200)
        == content(document, page, 400)
        == {"text/html": {}}
    )
    assert (
        content(document, page, 302) == content(document, ("post", "/mcp"), 202) == {}
    )
    assert set(content(document, ("post", "/mcp"), 200)) == {
        "application/json",
        "text/event-stream",
    }


def test_requests_name_their_fields(document: dict[str, Any]) -> None:
    found = operations(document)
    for path, (_rfc, fields, _statuses) in FORMS.items():
        body = found["post", path]["requestBody"]
        schema = body["content"]["application/x-www-form-urlencoded"]["schema"]
        assert body["required"] and set(schema["properties"]) == set(fields.split())
    asked = found["get", "/oauth/authorize"]["parameters"]
    assert {one["name"] for one in asked} >= {"code_challenge", "state", "resource"}
    assert {one["in"] for one in asked} == {"query"}
    message = found["post", "/mcp"]["requestBody"]["content"]["application/json"]
    assert message["schema"]["required"] == ["jsonrpc", "method"]
    client = found["post", "/oauth/register"]["requestBody"]["content"]
    assert client["application/json"]["schema"]["required"] == ["redirect_uris"]


def test_every_status_has_a_meaning() -> None:
    statuses = {status for found in DOCUMENTED.values() for status in found}
    assert statuses | {409, 412} == MEANINGS.keys()


def test_operations_are_described_by_their_texts(document: dict[str, Any]) -> None:
    found = operations(document)
    for path, (text, _statuses) in PUBLIC_GETS.items():
        assert found["get", path]["summary"] == text
    for path, (text, _fields, _statuses) in FORMS.items():
        assert found["post", path]["summary"] == text
