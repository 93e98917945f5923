"""A caller of /api/v1/ with a personal token, in process."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.models import Group
from django.test import Client
from rest_framework import serializers

from accounts.models import User
from accounts.models.roles import ADMIN_API
from accounts.tokens.issue import issue_personal_token
from tests.support.users import account

BASE = "/api/v1/"


def api_token(user: User, **fields: Any) -> str:
    """A personal token of `user` for the administration API."""
    _row, raw = issue_personal_token(
        user, name="api", scope=ADMIN_API, lifetime=timedelta(days=1), **fields
    )
    return raw


def member_of(group: str, name: str = "", **columns: Any) -> User:
    """A member of a staff group; `superuser` and `nobody` are no groups."""
    known = group not in ("superuser", "nobody")
    user = account(
        name or group.replace(" ", "-").lower(),
        is_staff=True,
        is_superuser=group == "superuser",
        **columns,
    )
    if known:
        user.groups.add(Group.objects.get(name=group))
    return user


class Caller:
    """Sends JSON with a token; keeps no cookies."""

    def __init__(self, user: User, raw: str = "") -> None:
        self.user, self.raw = user, raw or api_token(user)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The response to `path` below /api/v1/."""
        client = Client(headers={"authorization": f"Bearer {self.raw}", **headers})
        target, kind = f"{BASE}{path}", "application/json"
        return client.generic(method, target, json_of(body), content_type=kind)

    def get(self, path: str) -> Any:
        return self.send("GET", path)

    def post(self, path: str, body: Any = None) -> Any:
        return self.send("POST", path, {} if body is None else body)

    def patch(self, path: str, body: Any, **headers: str) -> Any:
        return self.send("PATCH", path, body, **headers)

    def delete(self, path: str) -> Any:
        return self.send("DELETE", path)


def json_of(body: Any) -> str:
    """A body as JSON; text is sent unchanged."""
    if body is None:
        return ""
    return body if isinstance(body, str) else json.dumps(body)


def filtered(caller: Caller, path: str, **query: str) -> set[Any]:
    """Keys of the rows of a list with these parameters."""
    answer = caller.get(f"{path}/?{urlencode(query)}")
    assert answer.status_code == 200, answer.content
    return keys_of(answer)


def keys_of(answer: Any) -> set[Any]:
    """Of the rows of a list; none if it was refused."""
    return {row.get("jti") or row["id"] for row in answer.json().get("results", ())}


def check_filters(path: str, mine: Any, other: Any, values: dict[str, str]) -> None:
    """Each value finds the one row, not the other; `not` is the value false.

    A part of a value finds neither, or is refused.
    """
    caller = Caller(member_of("superuser"))
    found_by = {name: "false" if v == "not" else v for name, v in values.items()}
    one, another = (getattr(row, "jti", row.pk) for row in (mine, other))
    for name, value in found_by.items():
        found = filtered(caller, path, **{name: value})
        assert (one in found, another in found) == (True, False), name
        for part in (value[1:], value[:-1]):
            partly = caller.get(f"{path}/?{urlencode({name: part})}")
            assert one not in keys_of(partly), (name, part)
        if value in ("true", "false"):
            opposite = {name: "false" if value == "true" else "true"}
            assert another in filtered(caller, path, **opposite), name


def fields_of(serializer: Any) -> str:
    """Names of its fields: `=` read only, `<` only taken, `*` required, `?` null."""
    marks = {"=": "read_only", "<": "write_only", "*": "required", "?": "allow_null"}
    names = [
        name + "".join(mark for mark, flag in marks.items() if getattr(field, flag))
        for name, field in serializer.fields.items()
    ]
    return " ".join(names)


def columns_of_filters(view: Any) -> dict[str, tuple[int, int]]:
    """Filter -> the longest value that it takes, and that of its column."""
    found = {}
    for name, (lookup, field) in view.filters.items():
        column: Any = None
        model = view.model
        for part in lookup.split("__"):
            if part in {f.name for f in model._meta.get_fields()}:
                column = model._meta.get_field(part)
                model = column.related_model or model
        if getattr(column, "max_length", None) and hasattr(field, "max_length"):
            found[name] = (field.max_length, column.max_length)
    return found


def serializers_of(package: str) -> dict[str, Any]:
    """Name -> class of every serializer in these modules."""
    found: dict[str, Any] = {}
    waiting: list[Any] = [serializers.BaseSerializer]
    while waiting:
        kinds = waiting.pop().__subclasses__()
        waiting += kinds
        found |= {k.__name__: k for k in kinds if k.__module__.startswith(package)}
    return found
