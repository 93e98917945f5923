"""One thread at a time generates the OpenAPI document."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator
from rest_framework.test import APIRequestFactory

from config.views.openapi import schema_view

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
    start = threading.Barrier(READERS)

    def read(_number: int) -> int:
        start.wait(5)
        return int(schema_view(APIRequestFactory().get("/api/schema/")).status_code)

    with ThreadPoolExecutor(READERS) as pool:
        assert list(pool.map(read, range(READERS))) == [200] * READERS
    assert most == [1] * READERS
