"""Every filter of the lists of tools and upstream servers compares its own column."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.models import Scope
from mcp_bridge.admin_api.urls import router
from mcp_bridge.models import Primitive, UpstreamServer
from tests.support.admin_api import check_filters

VIEWS: dict[str, Any] = {
    prefix.removeprefix("api/v1/"): view for prefix, view, _ in router.registry
}
COLUMNS = {"role"}
"""Parameters that choose columns of the answer, not rows."""


@pytest.fixture
def pairs(db: None) -> dict[str, tuple[Any, Any]]:
    """Two rows of each list, which differ in everything that filters compare."""
    servers = [
        UpstreamServer.objects.create(
            name=name, prefix=name, url=f"https://{name}.example/", enabled=enabled
        )
        for name, enabled in (("mine", True), ("other", False))
    ]
    columns = {"state": "held", "sensitive": True, "recorded_arguments": "full"}
    mine = Primitive.objects.create(
        kind="tool", name="one", upstream=servers[0], definition="a" * 64, **columns
    )
    mine.required_scopes.add(Scope.objects.create(name="tool:one"))
    other = Primitive.objects.create(
        kind="prompt", name="two", definition="b" * 64, enabled=False
    )
    tools = mine, other
    return {"tools": tools, "access": tools, "upstreams": (servers[0], servers[1])}


TOOL = {"kind": "tool", "name": "one", "state": "held", "upstream": "mine"}
VALUES = {
    "access": TOOL,
    "tools": {
        **TOOL,
        "scope": "tool:one",
        "enabled": "true",
        "sensitive": "true",
        "recorded_arguments": "full",
    },
    "upstreams": {"name": "mine", "enabled": "true"},
}


@pytest.mark.parametrize("path", sorted(VIEWS))
def test_a_filter_compares_its_own_column(
    pairs: dict[str, tuple[Any, Any]], path: str, settings: Any
) -> None:
    settings.LIMIT_API = "off"
    assert set(VALUES[path]) == set(VIEWS[path].filters) - COLUMNS
    check_filters(path, *pairs[path], VALUES[path])
