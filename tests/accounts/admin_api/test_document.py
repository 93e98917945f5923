"""The OpenAPI document of /api/v1/, and answers that fit it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from django.test import Client
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from config.views.openapi import MEANINGS
from tests.support.admin_api import Caller, member_of

SHARED = "400 401 403 404 405 409 412 415 429 503".split()
"""Errors of every operation."""
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]
document = schemathesis.openapi.from_wsgi("/api/schema/", get_wsgi_application())
administration = document.include(path_regex="^/api/v1/").exclude(
    path_regex="/(discover|test)/$"
)


@pytest.fixture
def caller(db: None, settings: Any) -> Iterator[Caller]:
    """In the test's transaction: a request would close its connection."""
    settings.LIMIT_API = "off"
    ends = (request_started, request_finished)
    for signal in ends:
        signal.disconnect(close_old_connections)
    yield Caller(member_of("superuser"))
    for signal in ends:
        signal.connect(close_old_connections)


@administration.parametrize()
@settings(
    max_examples=2,
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
def test_answers_fit_the_document(case: Any, caller: Caller) -> None:
    """Whatever is sent: no 500, and no answer that the document does not name."""
    case.call_and_validate(
        headers={"Authorization": f"Bearer {caller.raw}"}, checks=CHECKS
    )


def test_each_operation_is_described(db: None) -> None:
    """With a tag, a description, its rights, and the problem that refuses it."""
    paths = Client().get("/api/schema/").json()["paths"]
    ours = {path: known for path, known in paths.items() if "/api/v1/" in path}
    assert len(ours) >= 55
    for path, operations in ours.items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["tags"] and operation["description"], where
            assert operation["security"] == [{"personal": []}], where
            for status in SHARED:
                problem = operation["responses"][status]
                assert problem["description"] == MEANINGS[int(status)], where
                assert "application/problem+json" in problem["content"], where
