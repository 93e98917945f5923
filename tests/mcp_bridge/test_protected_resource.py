"""The metadata of the protected resource, at each of its paths."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

pytestmark = [pytest.mark.once, pytest.mark.django_db]
PATHS = [
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-protected-resource/mcp",
    "/.well-known/oauth-protected-resource/mcp/",
]


@pytest.fixture(autouse=True)
def addresses(settings: Any) -> None:
    settings.ISSUER_URL = "https://issuer.example"
    settings.RESOURCE_URL = "https://resource.example/mcp"


@pytest.mark.parametrize("path", PATHS)
def test_the_document_names_the_authorization_server(path: str) -> None:
    """RFC 9728 2."""
    answer = Client().get(path)
    assert answer.status_code == 200
    assert answer.json() == {
        "resource": "https://resource.example/mcp",
        "authorization_servers": ["https://issuer.example"],
        "scopes_supported": ["mcp"],
        "bearer_methods_supported": ["header"],
        "resource_name": "Portico",
    }
    assert answer["Cache-Control"] == "public, max-age=60"
    assert answer["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", PATHS)
def test_the_document_is_only_read(path: str) -> None:
    client = Client(enforce_csrf_checks=True)
    assert client.head(path).status_code == 200
    for method in ("post", "put", "delete", "patch"):
        answer = getattr(client, method)(path)
        assert answer.status_code == 405, "and not 403: no form is involved"
        assert answer["Allow"] == "GET, HEAD"
