"""URL patterns of the token API."""

from django.urls import path

from accounts.api import views

urlpatterns = [
    path("api/token/", views.ObtainView.as_view(), name="token"),
    path("api/token/refresh/", views.RefreshView.as_view(), name="token-refresh"),
    path("api/token/verify/", views.VerifyView.as_view(), name="token-verify"),
    path("api/token/blacklist/", views.BlacklistView.as_view(), name="token-blacklist"),
    path("oauth/jwks.json", views.jwks, name="jwks"),
]
