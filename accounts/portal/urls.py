"""URLs of the portal's account pages."""

from django.urls import path

from accounts.portal.connected_apps import AppsView
from accounts.portal.personal_tokens import PersonalTokensView
from accounts.portal.role_requests import AccessView
from accounts.portal.security import SecurityView

urlpatterns = [
    path("portal/access/", AccessView.as_view(), name="portal-access"),
    path("portal/security/", SecurityView.as_view(), name="portal-security"),
    path("portal/apps/", AppsView.as_view(), name="portal-apps"),
    path("portal/tokens/", PersonalTokensView.as_view(), name="portal-tokens"),
]
