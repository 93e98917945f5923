"""The paths of this app: their names, and who may open them."""

from __future__ import annotations

import pytest
from django.urls import resolve, reverse

from mcp_bridge.urls import urlpatterns

pytestmark = pytest.mark.once
PATHS = {
    "protected-resource": "/.well-known/oauth-protected-resource",
    "protected-resource-mcp": "/.well-known/oauth-protected-resource/mcp",
    "portal-home": "/portal/",
    "portal-connect": "/portal/connect/",
    "portal-try": "/portal/tools/",
    "portal-status": "/portal/connect/status",
}


def test_each_name_has_its_path() -> None:
    names = {pattern.name for pattern in urlpatterns if pattern.name}
    assert names == set(PATHS)
    assert {name: reverse(name) for name in PATHS} == PATHS
    assert {name: resolve(path).url_name for name, path in PATHS.items()} == {
        name: name for name in PATHS
    }
