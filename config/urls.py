"""All paths but /mcp."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView

from config.health import healthz

admin.site.site_header = admin.site.site_title = "Portico"
admin.site.index_title = "Who may do what"
admin.site.site_url = None

urlpatterns: list[URLPattern | URLResolver] = [
    path("", RedirectView.as_view(url="/admin/")),
    path("healthz", healthz),
    path("admin/", admin.site.urls),
    path("", include("accounts.api.urls")),
    path("", include("mcp_bridge.urls")),
]

handler500 = "config.health.server_error"
