"""Django's paths of this app; application.py serves /mcp itself."""

from django.urls import path

from mcp_bridge.portal import views
from mcp_bridge.portal.try_tool import TryToolView
from mcp_bridge.protected_resource import protected_resource

METADATA = ".well-known/oauth-protected-resource"

urlpatterns = [
    path(METADATA, protected_resource, name="protected-resource"),
    path(f"{METADATA}/mcp", protected_resource, name="protected-resource-mcp"),
    path(f"{METADATA}/mcp/", protected_resource),
    path("portal/", views.HomeView.as_view(), name="portal-home"),
    path("portal/connect/", views.ConnectView.as_view(), name="portal-connect"),
    path("portal/tools/", TryToolView.as_view(), name="portal-try"),
    path("portal/connect/status", views.StatusView.as_view(), name="portal-status"),
]
