"""Tools and upstream servers in the search of the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import RequestFactory

from accounts.models import User
from mcp_bridge.admin.search import Primitives, UpstreamServers
from mcp_bridge.models import Primitive, UpstreamServer

pytestmark = pytest.mark.django_db


def request_by(user: User) -> Any:
    request: Any = RequestFactory().get("/admin/search/")
    request.user = user
    return request


def shop_tool() -> Primitive:
    shop = UpstreamServer.objects.create(
        name="shop", title="Shop", url="https://shop.example/mcp"
    )
    row: Primitive = Primitive.objects.create(
        kind="tool", name="shop__add_item", title="Add an item", upstream=shop
    )
    return row


@pytest.mark.parametrize("word", ["shop__add_item", "add_it", "an item", "ITEM shop"])
def test_a_tool_leads_to_its_page_and_its_access_check(carol: User, word: str) -> None:
    row = shop_tool()
    (found,) = Primitives().results(request_by(carol), word)
    assert found.url == f"/admin/mcp_bridge/primitive/{row.pk}/change/"
    assert (found.title, found.detail) == (
        "shop__add_item",
        "tool · Add an item · Shop",
    )
    check = ("Access check", f"/admin/access/check/?primitive={row.pk}")
    assert found.links == (check,)


def test_a_tool_of_the_code_that_nobody_can_call_says_so(carol: User) -> None:
    Primitive.objects.create(kind="prompt", name="greet_all", enabled=False)
    (found,) = Primitives().results(request_by(carol), "greet_")
    assert found.detail == "prompt · disabled for everyone"


def test_the_access_check_needs_its_permissions() -> None:
    shop_tool()
    judy = User.objects.create(username="judy", is_staff=True)
    assert Primitives().results(request_by(judy), "add") == []
    assert UpstreamServers().results(request_by(judy), "shop") == []
    codes = ("view_primitive", "view_upstreamserver")
    judy.user_permissions.set(Permission.objects.filter(codename__in=codes))
    judy = User.objects.get(pk=judy.pk)
    (found,) = Primitives().results(request_by(judy), "add")
    assert found.links == ()
    assert len(UpstreamServers().results(request_by(judy), "shop")) == 1


@pytest.mark.parametrize("word", ["shop", "SHOP", "shop.example"])
def test_an_upstream_server_is_found(carol: User, word: str) -> None:
    row = shop_tool().upstream
    assert row is not None
    (found,) = UpstreamServers().results(request_by(carol), word)
    assert found.url == f"/admin/mcp_bridge/upstreamserver/{row.pk}/change/"
    assert (found.title, found.detail) == ("Shop", "https://shop.example/mcp")


def test_one_query_finds_the_tools(carol: User, django_assert_num_queries: Any) -> None:
    shop_tool()
    with django_assert_num_queries(1):
        Primitives().results(request_by(carol), "add")
