"""Notices on the dashboard about tools, resources and prompts."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import RequestFactory
from django.utils import timezone

from accounts.admin_site.notices import Notice, covered_checks, notices
from accounts.models import User
from mcp_bridge.admin.notices import (
    changed_definitions,
    first_few,
    unreachable,
    upstream_problems,
)
from mcp_bridge.models import Primitive, UpstreamServer, UpstreamStatus
from tests.support.users import account

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def one_tool() -> None:
    Primitive.objects.all().delete()
    Primitive.objects.create(kind="tool", name="alone", changed_at=timezone.now())


CHANGED = Notice(
    "Definition changed, needs review: alone",
    "/admin/definitions/",
    urgent=True,
)
UNREACHABLE = Notice("No role gives access to: alone", "/admin/access/matrix/")


def test_each_notice_links_to_the_page_to_act_on() -> None:
    assert list(changed_definitions()) == [CHANGED]
    assert list(unreachable()) == [UNREACHABLE]
    assert {"portico.W101", "portico.W102"} <= covered_checks


def test_without_a_reason_there_is_no_notice() -> None:
    Primitive.objects.update(changed_at=None, enabled=False)
    assert [*changed_definitions(), *unreachable()] == []


@pytest.mark.parametrize("superuser", [False, True])
def test_notices_are_for_those_who_may_view_tools(superuser: bool) -> None:
    request: Any = RequestFactory().get("/")
    request.user = account("carol", is_staff=True, is_superuser=superuser)
    assert isinstance(request.user, User)
    shown = [n for n in notices(request) if n in (CHANGED, UNREACHABLE)]
    assert shown == ([CHANGED, UNREACHABLE] if superuser else [])


@pytest.mark.parametrize(
    ("count", "text"), [(1, "0"), (5, "0, 1, 2, 3, 4"), (6, "0, 1, 2, 3, 4 ...")]
)
def test_five_names_are_shown(count: int, text: str) -> None:
    assert first_few([str(number) for number in range(count)]) == text


@pytest.mark.parametrize(
    ("columns", "status", "text"),
    [
        ({}, {}, ""),
        (
            {"credential_mode": "static_header"},
            {},
            "The credential for shop is missing.",
        ),
        ({"enabled": False}, {"error": "No answer."}, ""),
        ({}, {"error": "No answer."}, "shop: No answer."),
    ],
)
def test_an_upstream_server_that_does_not_work_is_named(
    columns: dict[str, Any], status: dict[str, str], text: str
) -> None:
    server = UpstreamServer.objects.create(
        name="shop", url="https://a.example/", **columns
    )
    UpstreamStatus.objects.create(upstream=server, **status)
    assert [str(one.text) for one in upstream_problems()] == ([text] if text else [])
