"""Error responses by kind of error and kind of client."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, transaction
from django.http import HttpResponse
from django.test import override_settings

from accounts.models import Role, Scope
from config.views.errors import server_error
from tests.support.static_files import UNCOLLECTED

pytestmark = pytest.mark.django_db


def database_error(kind: str) -> None:
    """An error of the database, raised by the database itself where possible."""
    if kind == "same row":
        Role.objects.bulk_create([Role(name="Twice"), Role(name="Twice")])
    if kind == "no value":
        Scope.objects.create(name=None)  # type: ignore[misc]
    raise OperationalError("away")


@override_settings(STORAGES=UNCOLLECTED)
def response_to(rf: Any, kind: str, accept: str) -> HttpResponse:
    """The response of Django's handler500."""
    try:
        with transaction.atomic():
            database_error(kind)
    except (IntegrityError, OperationalError):
        return server_error(rf.get("/admin/", headers={"accept": accept}))
    raise AssertionError("nothing broke")


@pytest.mark.parametrize(
    ("kind", "status", "error", "words"),
    [
        ("same row", 409, "conflict", "Conflicting change"),
        ("no value", 500, "server_error", "Something went wrong"),
        ("away", 503, "temporarily_unavailable", "Temporarily unavailable"),
    ],
)
def test_errors_are_answered_by_their_kind(
    rf: Any, kind: str, status: int, error: str, words: str
) -> None:
    """Programs get JSON, people a page; an error in Portico stays a 500."""
    response = response_to(rf, kind, "*/*")
    assert (
        response.status_code == status
        and json.loads(response.content)["error"] == error
    )
    page = response_to(rf, kind, "text/html,application/xhtml+xml")
    assert page.status_code == status and words in page.content.decode()
    assert ("Retry-After" in page) == (status == 503)
