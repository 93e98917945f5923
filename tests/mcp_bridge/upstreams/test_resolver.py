"""Forbidden addresses of upstream servers: each look-up of a name."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from accounts.http.private_addresses import AddressRefused
from mcp_bridge.upstreams.resolver import GuardedResolver

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def production(settings: Any) -> None:
    settings.ISSUER_URL = "https://portico.example.com"
    settings.UPSTREAM_PRIVATE_NETWORKS = []


def resolved(*addresses: str) -> list[str]:
    async def story() -> list[str]:
        resolver = GuardedResolver()

        async def found(*_asked: Any) -> Any:
            return [{"host": address} for address in addresses]

        async def closed() -> None: ...

        resolver.inner = cast(Any, SimpleNamespace(resolve=found, close=closed))
        answers = await resolver.resolve("acme.example", 443)
        await resolver.close()
        return [one["host"] for one in answers]

    return asyncio.run(story())


def test_every_address_of_a_name_counts() -> None:
    """The connection could take any of them."""
    assert resolved("1.1.1.1", "8.8.8.8") == ["1.1.1.1", "8.8.8.8"]
    for addresses in (("10.0.0.1",), ("1.1.1.1", "10.0.0.1"), ("1.1.1.1", "::1")):
        with pytest.raises(AddressRefused, match="^acme.example is "):
            resolved(*addresses)


def test_a_name_in_an_allowed_network_is_contacted(settings: Any) -> None:
    settings.UPSTREAM_PRIVATE_NETWORKS = ["10.0.0.0/8"]
    assert resolved("10.0.0.1") == ["10.0.0.1"]
