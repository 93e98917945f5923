"""Sign-in at OpenID providers (allauth): rows of ours say which, and for whom."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from allauth.account.signals import user_logged_in
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialApp
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from django.http import HttpRequest
from django.shortcuts import render
from requests import RequestException

from accounts.audit import one_line, record
from accounts.models import SignInProvider

logger = logging.getLogger(__name__)


class Providers(DefaultSocialAccountAdapter):
    """allauth's apps are our rows; their secrets stay encrypted."""

    def list_apps(
        self, request: HttpRequest, provider: Any = None, client_id: Any = None
    ) -> list[Any]:
        """The enabled providers, as allauth wants them (never saved)."""
        rows = SignInProvider.objects.filter(enabled=True)
        if provider and provider != "openid_connect":
            rows = rows.filter(slug=provider)
        if client_id:
            rows = rows.filter(client_id=client_id)
        return [app_of(row) for row in rows]

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        """Only through a provider that the administrator opened for it."""
        row = row_of(sociallogin)
        return bool(row and row.sign_up)

    def on_authentication_error(
        self,
        request: HttpRequest,
        provider: Any,
        error: Any = None,
        exception: Any = None,
        extra_context: Any = None,
    ) -> None:
        """On record; the page says no more than that it failed."""
        name = getattr(getattr(provider, "app", None), "provider_id", provider)
        told = one_line(str(exception or error or "unknown"))
        logger.warning("Sign-in through %s failed: %s", one_line(str(name)), told)
        record("user.sign_in_failed", request=request, object=str(name), denied="oidc")


def app_of(row: SignInProvider) -> SocialApp:
    """A row in allauth's shape."""
    return SocialApp(
        provider="openid_connect",
        provider_id=row.slug,
        name=row.name,
        client_id=row.client_id,
        secret=row.secret,
        settings={
            "server_url": row.issuer.rstrip("/"),
            "oauth_pkce_enabled": True,
            "email_authentication": row.link_by_email,
        },
    )


def row_of(sociallogin: Any) -> SignInProvider | None:
    """The row somebody came through."""
    rows = SignInProvider.objects.filter(enabled=True)
    return rows.filter(slug=sociallogin.account.provider).first()


def origins() -> list[str]:
    """Where the buttons of the sign-in page lead (CSP form-action)."""
    rows = SignInProvider.objects.filter(enabled=True)
    parts = [urlsplit(url) for url in rows.values_list("issuer", flat=True)]
    return sorted({f"{part.scheme}://{part.netloc}" for part in parts})


def guarded(view: Any) -> Any:
    """allauth's view; a provider that is away or odd gets a page, and 503."""

    def run(request: HttpRequest, provider_id: str) -> Any:
        try:
            return view(request, provider_id)
        except (RequestException, OAuth2Error, KeyError, ValueError) as error:
            about = SimpleNamespace(app=SimpleNamespace(provider_id=provider_id))
            Providers().on_authentication_error(request, about, exception=error)
            page = "socialaccount/authentication_error.html"
            answer = render(request, page, status=503)
            answer["Retry-After"] = "30"
            return answer

    return run


def connect() -> None:
    """Apply the claims once somebody is in, every factor given."""
    user_logged_in.connect(on_sign_in, dispatch_uid="portico-claims")


def on_sign_in(user: Any, sociallogin: Any = None, **kwargs: Any) -> None:
    """Roles by the claims of this sign-in."""
    row = row_of(sociallogin) if sociallogin is not None else None
    if row is None:
        return
    told = sociallogin.account.extra_data
    claims = {**told.get("id_token", {}), **told.get("userinfo", {})}
    row.apply(user, claims)
