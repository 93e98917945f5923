"""All paths but /mcp."""

from allauth.socialaccount.providers.openid_connect import views as openid
from django.contrib import admin
from django.contrib.auth.views import LogoutView
from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView
from django.views.i18n import set_language

from accounts import external
from accounts.signin import SecondStepView, SignInView
from config.health import healthz
from config.openapi import schema_view
from config.readiness import readyz

urlpatterns: list[URLPattern | URLResolver] = [
    path("", RedirectView.as_view(url="/portal/connect/")),
    path("healthz", healthz),
    path("readyz", readyz),
    path("api/schema/", schema_view, name="schema"),
    path("admin/", admin.site.urls),
    path("accounts/login/", SignInView.as_view(), name="account_login"),
    path("accounts/logout/", LogoutView.as_view(), name="sign-out"),
    path(
        "accounts/2fa/authenticate/",
        SecondStepView.as_view(),
        name="mfa_authenticate",
    ),
    path("accounts/2fa/", RedirectView.as_view(url="/portal/security/")),
    path("accounts/2fa/", include("allauth.mfa.urls")),
    path("accounts/social/", include("allauth.socialaccount.urls")),
    path(
        "accounts/oidc/<slug:provider_id>/login/",
        external.guarded(openid.login),
        name="openid_connect_login",
    ),
    path(
        "accounts/oidc/<slug:provider_id>/login/callback/",
        external.guarded(openid.callback),
        name="openid_connect_callback",
    ),
    path("accounts/", include("allauth.account.urls")),
    path("accounts/language/", set_language, name="set-language"),
    path("", include("accounts.api.urls")),
    path("", include("accounts.oauth.urls")),
    path("", include("accounts.portal.urls")),
    path("", include("mcp_bridge.urls")),
]

handler400 = "config.health.bad_request"
handler500 = "config.health.server_error"
