"""Paths that describe /mcp; /mcp itself is the router's."""

from django.urls import path

from mcp_bridge.views import protected_resource

METADATA = ".well-known/oauth-protected-resource"

urlpatterns = [
    path(METADATA, protected_resource, name="protected-resource"),
    path(f"{METADATA}/mcp", protected_resource, name="protected-resource-mcp"),
]
