"""Paths of the portal's account pages."""

from django.urls import path

from accounts.portal.apps import AppsView
from accounts.portal.personal import PersonalTokensView

urlpatterns = [
    path("portal/apps/", AppsView.as_view(), name="portal-apps"),
    path("portal/tokens/", PersonalTokensView.as_view(), name="portal-tokens"),
]
