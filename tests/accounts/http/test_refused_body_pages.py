"""Pages for bodies that were refused."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpResponse

from accounts.http.responses import SCOPE_KEY, RefusedBody, RefusedBodyMiddleware
from tests.support.static_files import UNCOLLECTED

pytestmark = pytest.mark.once
middleware = RefusedBodyMiddleware(lambda request: HttpResponse("view"))


def test_other_requests_pass(rf: Any) -> None:
    request = rf.post("/admin/")
    assert middleware(request).content == b"view"
    request.scope = {"type": "http"}
    assert middleware(request).content == b"view"


@pytest.mark.parametrize(
    ("status", "words"),
    [(413, "larger than 20.0\xa0MB"), (408, "did not arrive in time")],
)
def test_a_refused_body_gets_its_page(
    rf: Any, settings: Any, status: int, words: str
) -> None:
    settings.STORAGES = UNCOLLECTED
    request = rf.post("/admin/")
    request.scope = {SCOPE_KEY: RefusedBody(status, 20 * 1024 * 1024)}
    page = middleware(request)
    assert page.status_code == status and words in page.content.decode()
    assert page["Connection"] == "close" and page["Cache-Control"] == "no-store"
