"""Typed filters: their values, and the parameters they leave alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from accounts.admin_site.filters.typed import TypedFilter
from accounts.models import Role

pytestmark = pytest.mark.django_db
NAMES = [f"role {n}" for n in range(7)]


@pytest.fixture(autouse=True)
def roles() -> None:
    for name in NAMES:
        Role.objects.create(name=name, description=f"about {name}")


def others() -> Any:
    return Role.objects.filter(name__in=NAMES)


class ByName(TypedFilter):
    title = "names"
    inputs = (("name", "text", "Name"), ("description__startswith", "text", "About"))


def typed(kind: Any = ByName, **params: list[str]) -> Any:
    return kind(None, params, Role, None)


def test_typed_values_filter() -> None:
    one = typed(name=[" role 1 "], description__startswith=["about"])
    assert [role.name for role in one.queryset(None, others())] == ["role 1"]
    assert typed(name=[" "]).queryset(None, others()).count() == 7
    assert typed().queryset(None, others()).count() == 7
    last = typed(name=["role 1", "role 2"]).queryset(None, others())
    assert [role.name for role in last] == ["role 2"]


def test_a_filter_takes_its_parameters_only() -> None:
    params = {"name": ["x"], "other": ["y"]}
    one: Any = ByName(None, params, Role, None)
    assert params == {"other": ["y"]} and one.has_output()
    assert one.expected_parameters() == ["name", "description__startswith"]


def test_the_inputs_keep_the_other_parameters() -> None:
    one = typed(name=["x"])
    changelist = SimpleNamespace(
        params={"name": "x", "p": "2", "e": "1", "q": "word", "o": "1"}
    )
    (shown,) = one.choices(changelist)
    assert shown["boxes"] == [
        ("name", "text", "Name", "x"),
        ("description__startswith", "text", "About", ""),
    ]
    assert shown["kept"] == [("q", "word"), ("o", "1")]
