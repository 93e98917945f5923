"""/api/docs/: every operation of the administration API, without scripts."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from config.views.api_docs import sections, type_of
from config.views.openapi import document
from tests.support.static_files import UNCOLLECTED


def test_every_operation_is_on_the_page(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED
    answer = Client().get("/api/docs/")
    page = answer.content.decode()
    ours = {
        f"{method.upper()} {path}"
        for path, methods in document()["paths"].items()
        for method in methods
        if path.startswith("/api/v1/")
    }
    assert len(ours) > 35 and not {one for one in ours if one not in page}
    assert set(sections()) >= {"people", "tools", "upstreams", "events"}
    assert "default-src 'none'" in answer["Content-Security-Policy"]
    for name in ("save_unreachable", "end_own_access", "expires_at", "cursor"):
        assert f"<code>{name}</code>" in page, name


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"type": "string"}, "string"),
        ({"type": "string", "format": "date-time"}, "string (date-time)"),
        ({"type": ["string", "null"], "format": "uri"}, "string or null (uri)"),
        ({"enum": ["a", "b"]}, "choice"),
    ],
    ids=str,
)
def test_the_type_of_a_field_in_words(field: dict[str, Any], words: str) -> None:
    assert type_of(field) == words
