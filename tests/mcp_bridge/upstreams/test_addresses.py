"""Forbidden addresses of upstream servers in a URL."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_bridge.upstreams.addresses import check_url
from mcp_bridge.upstreams.problems import UpstreamProblem

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def production(settings: Any) -> None:
    settings.ISSUER_URL = "https://portico.example.com"
    settings.UPSTREAM_PRIVATE_NETWORKS = []


@pytest.mark.parametrize("host", ["10.0.0.1", "[::1]", "169.254.169.254", "127.0.0.1"])
def test_a_private_address_in_the_url_is_refused(host: str) -> None:
    with pytest.raises(UpstreamProblem, match="UPSTREAM_PRIVATE_NETWORKS") as refused:
        check_url("acme", f"https://{host}/mcp")
    assert refused.value.code == "private_address"


@pytest.mark.parametrize("host", ["1.1.1.1", "acme.example", "10.0.0.1.nip.io"])
def test_a_name_is_judged_when_it_is_resolved(host: str) -> None:
    check_url("acme", f"https://{host}/mcp")


def test_an_allowed_network_is_contacted(settings: Any) -> None:
    settings.UPSTREAM_PRIVATE_NETWORKS = ["10.0.0.0/8"]
    check_url("acme", "https://10.0.0.1/mcp")
