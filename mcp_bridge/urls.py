"""Paths beside /mcp; /mcp itself is the router's."""

from django.urls import path

from mcp_bridge import portal
from mcp_bridge.views import protected_resource

METADATA = ".well-known/oauth-protected-resource"

urlpatterns = [
    path(METADATA, protected_resource, name="protected-resource"),
    path(f"{METADATA}/mcp", protected_resource, name="protected-resource-mcp"),
    path(f"{METADATA}/mcp/", protected_resource),
    path("portal/", portal.HomeView.as_view(), name="portal-home"),
    path("portal/connect/", portal.ConnectView.as_view(), name="portal-connect"),
    path("portal/connect/status", portal.StatusView.as_view(), name="portal-status"),
]
