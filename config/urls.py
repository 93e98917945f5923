"""All paths except /mcp."""

from typing import NoReturn

from allauth.account import views as account
from allauth.account.decorators import reauthentication_required
from allauth.socialaccount import views as social
from django.contrib import admin
from django.http import Http404, HttpRequest
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.generic import RedirectView
from django.views.i18n import set_language

from accounts.authentication.invitations import InvitationLinkView, InvitationView
from accounts.authentication.oidc import adapter, provider
from accounts.authentication.views import SecondStepView, SignOutView
from config.views.api_docs import api_docs
from config.views.health import healthz
from config.views.help import help_page
from config.views.openapi import schema_view
from config.views.readiness import readyz

NOT_SERVED = {
    "account_email": "accounts/email/",
    "account_signup": "accounts/signup/",
    "account_email_verification_sent": "accounts/confirm-email/",
    "account_confirm_email": "accounts/confirm-email/<str:key>/",
    "account_confirm_login_code": "accounts/login/code/confirm/",
    "socialaccount_signup": "accounts/social/signup/",
}
"""Pages of allauth in which people could choose their own address or name.

allauth's code reverses these names, so they must exist.
"""


def not_served(request: HttpRequest, **parts: str) -> NoReturn:
    raise Http404


urlpatterns: list[URLPattern | URLResolver] = [
    path("", RedirectView.as_view(url="/portal/connect/")),
    path("healthz", healthz),
    path("readyz", readyz),
    path("api/schema/", schema_view, name="schema"),
    path("api/docs/", api_docs, name="api-docs"),
    path("help/", help_page, name="help"),
    path("help/<slug:name>/", help_page, name="guide"),
    path("admin/", admin.site.urls),
    path("accounts/login/", account.login, name="account_login"),
    path("accounts/logout/", SignOutView.as_view(), name="sign-out"),
    path("accounts/logout/", SignOutView.as_view(), name="account_logout"),
    path(
        "accounts/2fa/authenticate/",
        SecondStepView.as_view(),
        name="mfa_authenticate",
    ),
    path("accounts/2fa/", RedirectView.as_view(url="/portal/security/")),
    path("accounts/2fa/webauthn/", RedirectView.as_view(url="/portal/security/")),
    path("accounts/2fa/", include("allauth.mfa.urls")),
    path(
        "accounts/social/",
        social.connections,
        name="socialaccount_connections",
    ),
    path(
        "accounts/social/login/cancelled/",
        social.login_cancelled,
        name="socialaccount_login_cancelled",
    ),
    path(
        "accounts/social/login/error/",
        social.login_error,
        name="socialaccount_login_error",
    ),
    path(
        "accounts/oidc/<slug:provider_id>/login/",
        adapter.unavailable_as_503(provider.login),
        name="openid_connect_login",
    ),
    path(
        "accounts/oidc/<slug:provider_id>/login/callback/",
        adapter.unavailable_as_503(provider.callback),
        name="openid_connect_callback",
    ),
    path("accounts/", RedirectView.as_view(url="/portal/security/")),
    path("accounts/inactive/", account.account_inactive, name="account_inactive"),
    path(
        "accounts/reauthenticate/",
        account.reauthenticate,
        name="account_reauthenticate",
    ),
    path(
        "accounts/password/change/",
        account.password_change,
        name="account_change_password",
    ),
    path(
        "accounts/password/set/",
        reauthentication_required(app="allauth.account")(account.password_set),
        name="account_set_password",
    ),
    path(
        "accounts/password/reset/",
        account.password_reset,
        name="account_reset_password",
    ),
    path(
        "accounts/password/reset/done/",
        account.password_reset_done,
        name="account_reset_password_done",
    ),
    path(
        "accounts/password/reset/key/done/",
        account.password_reset_from_key_done,
        name="account_reset_password_from_key_done",
    ),
    re_path(
        r"^accounts/password/reset/key/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$",
        account.password_reset_from_key,
        name="account_reset_password_from_key",
    ),
    path("accounts/invitation/", InvitationView.as_view(), name="invitation"),
    path(
        "accounts/invitation/<str:token>/",
        InvitationLinkView.as_view(),
        name="invitation-link",
    ),
    *(path(where, not_served, name=name) for name, where in NOT_SERVED.items()),
    path("accounts/language/", set_language, name="set-language"),
    path("", include("accounts.api.urls")),
    path("", include("accounts.admin_api.urls")),
    path("", include("accounts.oauth.urls")),
    path("", include("accounts.portal.urls")),
    path("", include("mcp_bridge.admin_api.urls")),
    path("", include("mcp_bridge.urls")),
]

handler400 = "config.views.errors.bad_request"
handler403 = "config.views.errors.forbidden"
handler404 = "config.views.errors.not_found"
handler500 = "config.views.errors.server_error"
