"""A changed definition notifies in the transaction that marks it."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.models import Delivery
from mcp_bridge.models import Offer, Primitive, UpstreamServer
from mcp_bridge.models.definition_notices import MOST_NAMES
from tests.support.notification_rows import channel_row

pytestmark = pytest.mark.django_db


def offers(digit: str, *names: str) -> list[Offer]:
    return [
        Offer("tool", name, "", "", (), False, definition=digit * 64) for name in names
    ]


@pytest.fixture(autouse=True)
def nothing() -> None:
    Primitive.objects.all().delete()
    channel_row()


@pytest.mark.parametrize("upstream", [False, True], ids=["code", "upstream"])
def test_a_change_is_notified_once_with_its_source(upstream: bool) -> None:
    server = None
    if upstream:
        url = "https://crm.example/mcp"
        server = UpstreamServer.objects.create(name="crm", url=url)
    Primitive.objects.sync(offers("a", "saw", "drill"), server)
    assert not Delivery.objects.exists()
    for _ in range(2):
        Primitive.objects.sync(offers("b", "saw", "drill"), server)
    row = Delivery.objects.get()
    assert row.kind == "definition.changed"
    data: dict[str, Any] = row.payload
    assert data["object"] == (str(server) if server else "code")
    assert (data["names"], data["count"]) == ("saw, drill", 2)


def test_many_changes_are_one_notification() -> None:
    names = [f"t{number}" for number in range(MOST_NAMES + 3)]
    for digit in "ab":
        Primitive.objects.sync(offers(digit, *names))
    data = Delivery.objects.get().payload
    assert data["names"].endswith("t19 (+3)") and data["count"] == 23


def test_what_comes_and_goes_is_no_change() -> None:
    Primitive.objects.sync(offers("a", "saw"))
    Primitive.objects.sync([])
    Primitive.objects.sync(offers("a", "saw", "drill"))
    assert not Delivery.objects.exists()
