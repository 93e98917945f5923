"""Errors of /api/v1/ as problem details (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.core.exceptions import ValidationError as ModelError
from django.db.models import ProtectedError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from accounts.authorization.delegation import NOT_YOURS, NotAllowed
from accounts.http.responses import PROBLEM_TYPE, problem_body

MISSING = "There is no such row, or you may not view it."
WRONG_FIELDS = "Some values are not valid; errors names each of them."
PRESENT = {"unique", "unique_together"}
"""Codes of errors about values that another row has."""


class FormRefused(Exception):
    """A form of the admin has errors."""

    def __init__(self, form: Any) -> None:
        super().__init__(WRONG_FIELDS)
        self.form = form
        self.names: dict[str, str] = {"__all__": ""}
        """Field of the form -> field of JSON, where they differ."""

    @property
    def status(self) -> int:
        """403 if a rule about the actor's rights refuses, 409 if nothing is wrong but
        that the row exists, else 400.
        """
        data = self.form.errors.as_data().values()
        codes = {error.code for errors in data for error in errors}
        if NOT_YOURS in codes:
            return 403
        return 409 if codes and codes <= PRESENT else 400

    @property
    def errors(self) -> list[dict[str, str]]:
        """Each with `field`, empty for the whole, and `detail`."""
        return [
            {"field": self.names.get(name, name), "detail": str(text)}
            for name, texts in self.form.errors.items()
            for text in texts
        ]


class RowsRefused(FormRefused):
    """Rows of an inline have errors; `form` is the formset, `name` its field.

    `numbers` is form -> the number of the row in the request.
    """

    def __init__(self, form: Any, name: str, numbers: dict[Any, int]) -> None:
        super().__init__(form)
        self.name, self.numbers = name, numbers

    @property
    def status(self) -> int:
        return 400

    @property
    def errors(self) -> list[dict[str, str]]:
        """As for one form; `field` is such as `rules.0.value`."""
        name = self.names.get(self.name, self.name)
        texts = self.form.non_form_errors()
        found = [{"field": name, "detail": str(text)} for text in texts]
        for form, number in self.numbers.items():
            for one in FormRefused(form).errors:
                field = ".".join(filter(None, (name, str(number), one["field"])))
                found.append({**one, "field": field})
        return found


def checked_values(serializer: Any) -> dict[str, Any]:
    """The valid values. Raises ValidationError, also for fields that it lacks."""
    data = serializer.initial_data
    if isinstance(data, Mapping):
        refuse_unknown_fields(data, serializer.fields)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def refuse_unknown_fields(data: Mapping[str, Any], fields: Any) -> None:
    """Raises ValidationError that names each field that cannot be written."""
    known = {name for name, field in fields.items() if not field.read_only}
    errors = {}
    for name in map(str, data):
        if name not in known and name in fields:
            errors[name] = "This field is read only. Leave it out."
        elif name not in known:
            listed = ", ".join(sorted(known)) or "none"
            errors[name] = f"There is no such field; there are: {listed}."
    if errors:
        raise exceptions.ValidationError(errors)


class Conflict(exceptions.APIException):
    """The change conflicts with other rows."""

    status_code = 409


class Unchanged(exceptions.APIException):
    """The row is not the one that the client read (RFC 9110 13.1.1)."""

    status_code = 412
    default_detail = "The row has changed. Read it again and send its new ETag."


def problem(
    status: int, detail: str, headers: dict[str, str] | None = None, **members: Any
) -> Response:
    """A response with a problem document."""
    body = problem_body(status, detail, **members)
    return Response(body, status=status, headers=headers, content_type=PROBLEM_TYPE)


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler; None raises an unknown exception again."""
    response = answer_to(error)
    if response is not None:
        set_rollback()
    return response


def answer_to(error: Exception) -> Response | None:
    match error:
        case FormRefused():
            detail = " ".join(one["detail"] for one in error.errors)
            return problem(error.status, detail, errors=error.errors)
        case exceptions.ValidationError():
            return problem(400, WRONG_FIELDS, errors=list(field_errors(error.detail)))
        case Http404() | exceptions.NotFound():
            return problem(404, str(error) or MISSING)
        case NotAllowed():
            return problem(403, str(error))
        case ProtectedError():
            return problem(409, "Other rows need it. Remove or change those first.")
        case ModelError():
            return problem(409, " ".join(error.messages))
        case RecursionError():
            return problem(400, "The body is nested too deeply.")
        case exceptions.APIException():
            return problem(error.status_code, str(error.detail), headers_of(error))
    return None


def headers_of(error: exceptions.APIException) -> dict[str, str]:
    challenge = getattr(error, "auth_header", None)
    return {"WWW-Authenticate": challenge} if challenge else {}


def field_errors(detail: Any, at: str = "") -> Iterator[dict[str, str]]:
    """DRF's nested details as a flat list; `field` is a path with dots."""
    if isinstance(detail, dict):
        for name, inner in detail.items():
            here = "" if name == "non_field_errors" else str(name)
            yield from field_errors(inner, ".".join(p for p in (at, here) if p))
    elif isinstance(detail, list):
        for inner in detail:
            yield from field_errors(inner, at)
    else:
        yield {"field": at, "detail": str(detail)}
