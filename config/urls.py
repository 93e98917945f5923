"""All paths but /mcp."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from config.health import healthz

urlpatterns: list[URLPattern | URLResolver] = [
    path("healthz", healthz),
    path("admin/", admin.site.urls),
    path("", include("accounts.api.urls")),
    path("", include("mcp_bridge.urls")),
]

handler500 = "config.health.server_error"
