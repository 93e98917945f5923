"""URL patterns of the authorization server."""

from django.urls import path

from accounts.oauth import authorize, device, introspect, metadata, revoke, token
from accounts.oauth.clients import register

WELL_KNOWN = ".well-known/oauth-authorization-server"

urlpatterns = [
    path(WELL_KNOWN, metadata.metadata, name="oauth-metadata"),
    path(f"{WELL_KNOWN}/mcp", metadata.metadata),
    path("oauth/authorize", authorize.AuthorizeView.as_view(), name="oauth-authorize"),
    path("oauth/token", token.TokenEndpoint.as_view(), name="oauth-token"),
    path("oauth/revoke", revoke.RevocationEndpoint.as_view(), name="oauth-revoke"),
    path(
        "oauth/introspect",
        introspect.IntrospectionEndpoint.as_view(),
        name="introspect",
    ),
    path("oauth/device", device.DeviceView.as_view(), name="oauth-device"),
    path("device", device.DevicePage.as_view(), name="device"),
    path("oauth/register", register.RegisterView.as_view(), name="oauth-register"),
]
