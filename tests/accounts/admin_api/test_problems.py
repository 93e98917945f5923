"""Which error is which problem."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError as ModelError
from django.db.models import ProtectedError
from django.http import Http404
from rest_framework import exceptions

from accounts.admin_api.problems import answer_to, field_errors, handle
from accounts.authorization.delegation import NotAllowed

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (NotAllowed("Not yours."), 403, "Not yours."),
        (Http404("No list."), 404, "No list."),
        (Http404(), 404, "There is no such row, or you may not view it."),
        (exceptions.NotFound("Gone."), 404, "Gone."),
        (ProtectedError("x", set()), 409, "Other rows need it."),
        (ModelError(["One.", "Two."]), 409, "One. Two."),
        (RecursionError(), 400, "The body is nested too deeply."),
        (exceptions.MethodNotAllowed("PUT"), 405, 'Method "PUT" not allowed.'),
    ],
)
def test_an_error_has_its_status(error: Exception, status: int, detail: str) -> None:
    answer = handle(error, {})
    assert answer is not None and answer.status_code == status
    assert answer.data["detail"].startswith(detail)
    assert answer.content_type == "application/problem+json"


def test_a_challenge_is_a_header() -> None:
    error: Any = exceptions.NotAuthenticated()
    error.auth_header = "Bearer"
    answer = answer_to(error)
    assert answer is not None and answer.headers["WWW-Authenticate"] == "Bearer"
    plain = answer_to(exceptions.PermissionDenied())
    assert plain is not None and "WWW-Authenticate" not in plain.headers


def test_other_errors_are_raised_again() -> None:
    """A mistake of the code is a 500 with its traceback in the log."""
    assert handle(ZeroDivisionError(), {}) is None


def test_nested_errors_name_their_place() -> None:
    detail = {"a": {"b": ["x", "y"], "non_field_errors": ["z"]}, "c": "w"}
    assert list(field_errors(detail)) == [
        {"field": "a.b", "detail": "x"},
        {"field": "a.b", "detail": "y"},
        {"field": "a", "detail": "z"},
        {"field": "c", "detail": "w"},
    ]
