"""Sign-in at OpenID providers (allauth): rows of ours say which, and for whom."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode, urlsplit

from allauth.account.models import EmailAddress
from allauth.account.signals import user_logged_in
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount import signals
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialApp
from allauth.socialaccount.providers.base import AuthProcess
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from requests import RequestException

from accounts.audit.record import record
from accounts.authentication.oidc.account_linking import (
    LinkRefused,
    link,
    refuse_second_identity,
    unlink,
)
from accounts.authentication.oidc.provider import OIDCProvider
from accounts.http import outbound_calls
from accounts.http.issuer_urls import is_other_host
from accounts.models import SignInProvider
from accounts.parsing.text import one_line

logger = logging.getLogger(__name__)

PROVIDER_ERRORS = (RequestException, OAuth2Error, KeyError, TypeError, ValueError)
"""What allauth raises where a provider is away or answers with something else."""

SLOTS = outbound_calls.Slots(together=16, per_host=8, wait=2.0)
"""Calls to providers at the same time; who finds no place waits a little, then 503."""
CALL_TIMEOUT = 5.0
"""Seconds a provider has for one answer, from the look-up of its name to the end."""


class SocialAccountAdapter(DefaultSocialAccountAdapter):
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
        return [social_app_of(row) for row in rows]

    def get_provider(
        self, request: HttpRequest, provider: Any, client_id: Any = None
    ) -> OIDCProvider:
        """The one kind there is. Raises SocialApp.DoesNotExist."""
        app = self.get_app(request, provider=provider, client_id=client_id)
        return OIDCProvider(request, app=app)

    def new_user(self, request: HttpRequest, sociallogin: Any) -> Any:
        """Its address comes from a provider, so it links nobody else."""
        user = super().new_user(request, sociallogin)
        user.email_set_by_admin = False
        return user

    def save_user(
        self, request: HttpRequest, sociallogin: Any, form: Any = None
    ) -> Any:
        """Without allauth's row of the address: it would outlive a change of it."""
        user = super().save_user(request, sociallogin, form)
        EmailAddress.objects.filter(user=user).delete()
        return user

    def authenticate_by_email(self, sociallogin: Any) -> None:
        """Nobody: allauth also looks at addresses that people add themselves."""

    def pre_social_login(self, request: HttpRequest, sociallogin: Any) -> None:
        """Link an unknown identity to its account, or refuse it with a page."""
        row = provider_of(sociallogin)
        if row is None or sociallogin.is_existing:
            return
        try:
            if sociallogin.state.get("process") == AuthProcess.CONNECT:
                if request.user.is_authenticated:
                    refuse_second_identity(row, request.user)
            elif link(request, row, sociallogin.account):
                sociallogin.user = sociallogin.account.user
                self.send_link_mail(sociallogin)
        except LinkRefused as refused:
            raise ImmediateHttpResponse(
                link_refused_page(request, row, refused)
            ) from refused

    def send_link_mail(self, sociallogin: Any) -> None:
        """Tell the person, outside of the transaction."""
        account = sociallogin.account
        context = {"account": account, "provider": sociallogin.provider}
        mail = "socialaccount/email/account_connected"
        self.send_notification_mail(mail, sociallogin.user, context=context)

    def get_requests_session(self) -> outbound_calls.DeadlineSession:
        """For every call to a provider: bounded in number and time."""
        return outbound_calls.DeadlineSession(SLOTS, CALL_TIMEOUT)

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        """Only through a provider that the administrator opened for it."""
        row = provider_of(sociallogin)
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


def social_app_of(row: SignInProvider) -> SocialApp:
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
        },
    )


def link_refused_page(
    request: HttpRequest, row: SignInProvider, refused: LinkRefused
) -> HttpResponse:
    """A page that says why; on record."""
    record(
        "user.sign_in_failed", request=request, object=row.slug, denied=refused.reason
    )
    page, context = "socialaccount/refused.html", {"text": str(refused)}
    answer = render(request, page, context, status=403)
    answer["Cache-Control"] = "no-store"
    return answer


def provider_of(sociallogin: Any) -> SignInProvider | None:
    """The row somebody came through."""
    rows = SignInProvider.objects.filter(enabled=True)
    return rows.filter(slug=sociallogin.account.provider).first()


def provider_origins() -> list[str]:
    """Where the buttons of the sign-in page lead (CSP form-action)."""
    rows = SignInProvider.objects.filter(enabled=True)
    parts = [urlsplit(url) for url in rows.values_list("issuer", flat=True)]
    return sorted({f"{part.scheme}://{part.netloc}" for part in parts})


def unavailable_as_503(view: Any) -> Any:
    """allauth's view; a provider that is away or odd gets a page, and 503."""

    def run(request: HttpRequest, provider_id: str) -> Any:
        if is_other_host(request):
            return redirect_to_issuer_host(request)
        try:
            return view(request, provider_id)
        except PROVIDER_ERRORS as error:
            about = SimpleNamespace(app=SimpleNamespace(provider_id=provider_id))
            SocialAccountAdapter().on_authentication_error(
                request, about, exception=error
            )
            page = "socialaccount/authentication_error.html"
            answer = render(request, page, status=503)
            answer["Retry-After"] = "30"
            return answer

    return run


def redirect_to_issuer_host(request: HttpRequest) -> HttpResponse:
    """The sign-in page at the issuer's host: a provider returns to that one, and the
    session of who began elsewhere would not be there.
    """
    wanted = request.POST.get("next") or request.GET.get("next", "")
    query = f"?{urlencode({'next': wanted})}" if wanted else ""
    return redirect(f"{settings.ISSUER_URL}{reverse('account_login')}{query}")


def connect_claims() -> None:
    """Apply the claims once somebody is in; record what people connect themselves."""
    user_logged_in.connect(on_sign_in, dispatch_uid="portico-claims")
    signals.social_account_added.connect(on_added, dispatch_uid="portico-linked")
    signals.social_account_removed.connect(on_removed, dispatch_uid="portico-unlinked")


def on_sign_in(user: Any, sociallogin: Any = None, **kwargs: Any) -> None:
    """Roles by the claims of this sign-in."""
    row = provider_of(sociallogin) if sociallogin is not None else None
    if row is None:
        return
    told = sociallogin.account.extra_data
    claims = {**told.get("id_token", {}), **told.get("userinfo", {})}
    row.apply(user, claims, keep=kwargs.get("request"))


def on_added(request: HttpRequest, sociallogin: Any, **kwargs: Any) -> None:
    """Somebody signed in connected an identity of theirs."""
    about, user = f"at provider {sociallogin.account.provider}", sociallogin.user
    record("user.linked", request=request, actor=user, object=user, reason=about)


def on_removed(request: HttpRequest, socialaccount: Any, **kwargs: Any) -> None:
    """Somebody signed in disconnected one of theirs."""
    unlink(request, socialaccount, socialaccount.user)
