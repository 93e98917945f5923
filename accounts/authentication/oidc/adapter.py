"""allauth's social account adapter, configured by SignInProvider rows."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

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
from accounts.crypto.encryption import KeyUnreadable
from accounts.http import outbound_calls
from accounts.http.issuer_urls import is_other_host
from accounts.models import SignInProvider
from accounts.parsing.text import one_line

logger = logging.getLogger(__name__)

PROVIDER_ERRORS = (
    RequestException,
    OAuth2Error,
    KeyUnreadable,
    KeyError,
    TypeError,
    ValueError,
)
"""Exceptions for an unreachable provider, an invalid response or a lost secret."""

SLOTS = outbound_calls.Slots(together=16, per_host=8, wait=2.0)
"""Limits concurrent calls to providers; a call waits up to 2 seconds, then 503."""
CALL_TIMEOUT = 5.0
"""Seconds for one call, from the DNS look-up to the end of the response."""


class SocialAccountAdapter(DefaultSocialAccountAdapter):
    """Provides SignInProvider rows as allauth apps; secrets stay encrypted at rest."""

    def list_apps(
        self, request: HttpRequest, provider: Any = None, client_id: Any = None
    ) -> list[Any]:
        """The enabled providers as unsaved SocialApp objects.

        Raises KeyUnreadable for a named provider. The sign-in page lists all, needs no
        secret, and must not fail for one that cannot be decrypted.
        """
        rows = SignInProvider.objects.filter(enabled=True)
        if provider and provider != "openid_connect":
            rows = rows.filter(slug=provider)
        if client_id:
            rows = rows.filter(client_id=client_id)
        return [social_app_of(row, needs_secret=bool(provider)) for row in rows]

    def get_provider(
        self, request: HttpRequest, provider: Any, client_id: Any = None
    ) -> OIDCProvider:
        """Raises SocialApp.DoesNotExist."""
        app = self.get_app(request, provider=provider, client_id=client_id)
        return OIDCProvider(request, app=app)

    def new_user(self, request: HttpRequest, sociallogin: Any) -> Any:
        """Mark the address as the provider's, so that it links no other identity."""
        user = super().new_user(request, sociallogin)
        user.email_set_by_admin = False
        return user

    def save_user(
        self, request: HttpRequest, sociallogin: Any, form: Any = None
    ) -> Any:
        """Delete allauth's EmailAddress row, which a change would not update."""
        user = super().save_user(request, sociallogin, form)
        EmailAddress.objects.filter(user=user).delete()
        return user

    def authenticate_by_email(self, sociallogin: Any) -> None:
        """Find no account: allauth also matches addresses that users add themselves."""

    def pre_social_login(self, request: HttpRequest, sociallogin: Any) -> None:
        """Link a new identity to its account, or answer with the refusal page."""
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
        """Notify the user; call it outside the transaction."""
        account = sociallogin.account
        context = {"account": account, "provider": sociallogin.provider}
        mail = "socialaccount/email/account_connected"
        self.send_notification_mail(mail, sociallogin.user, context=context)

    def get_requests_session(self) -> outbound_calls.DeadlineSession:
        """The session for all calls to providers, with limits on number and time."""
        return outbound_calls.DeadlineSession(SLOTS, CALL_TIMEOUT)

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        """Whether the administrator enabled sign-up for this provider."""
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
        """Log the cause and audit the failure; the page does not show the cause."""
        name = getattr(getattr(provider, "app", None), "provider_id", provider)
        cause = one_line(str(exception or error or "unknown"))
        logger.warning("Sign-in through %s failed: %s", one_line(str(name)), cause)
        record("user.sign_in_failed", request=request, object=str(name), denied="oidc")


def social_app_of(row: SignInProvider, *, needs_secret: bool) -> SocialApp:
    """The provider's row as an unsaved allauth app. Raises KeyUnreadable."""
    try:
        secret = row.secret
    except KeyUnreadable:
        if needs_secret:
            raise
        secret = ""
    return SocialApp(
        provider="openid_connect",
        provider_id=row.slug,
        name=row.name,
        client_id=row.client_id,
        secret=secret,
        settings={
            "server_url": row.issuer.rstrip("/"),
            "oauth_pkce_enabled": True,
        },
    )


def link_refused_page(
    request: HttpRequest, row: SignInProvider, refused: LinkRefused
) -> HttpResponse:
    """The page that states why linking was refused; audits the refusal."""
    record(
        "user.sign_in_failed", request=request, object=row.slug, denied=refused.reason
    )
    page, context = "socialaccount/refused.html", {"text": str(refused)}
    response = render(request, page, context, status=403)
    response["Cache-Control"] = "no-store"
    return response


def provider_of(sociallogin: Any) -> SignInProvider | None:
    """The enabled provider of this sign-in; None if it is disabled or deleted."""
    rows = SignInProvider.objects.filter(enabled=True)
    return rows.filter(slug=sociallogin.account.provider).first()


def unavailable_as_503(view: Any) -> Any:
    """Wrap allauth's view: answer 503 if the provider fails (PROVIDER_ERRORS)."""

    def run(request: HttpRequest, provider_id: str) -> Any:
        if is_other_host(request):
            return redirect_to_issuer_host(request)
        try:
            return view(request, provider_id)
        except PROVIDER_ERRORS as error:
            provider = SimpleNamespace(app=SimpleNamespace(provider_id=provider_id))
            SocialAccountAdapter().on_authentication_error(
                request, provider, exception=error
            )
            page = "socialaccount/authentication_error.html"
            response = render(request, page, status=503)
            response["Retry-After"] = "30"
            return response

    return run


def redirect_to_issuer_host(request: HttpRequest) -> HttpResponse:
    """Redirect to the sign-in page on the issuer's host.

    The provider redirects back to that host, where a session cookie of another host is
    missing.
    """
    target = request.POST.get("next") or request.GET.get("next", "")
    query = f"?{urlencode({'next': target})}" if target else ""
    return redirect(f"{settings.ISSUER_URL}{reverse('account_login')}{query}")


def connect_claims() -> None:
    """Connect the receivers that apply claims and audit linked identities."""
    user_logged_in.connect(on_sign_in, dispatch_uid="portico-claims")
    signals.social_account_added.connect(on_added, dispatch_uid="portico-linked")
    signals.social_account_removed.connect(on_removed, dispatch_uid="portico-unlinked")


def on_sign_in(user: Any, sociallogin: Any = None, **kwargs: Any) -> None:
    """Assign the roles that the provider's rules derive from the claims."""
    row = provider_of(sociallogin) if sociallogin is not None else None
    if row is None:
        return
    documents = sociallogin.account.extra_data
    claims = {**documents.get("id_token", {}), **documents.get("userinfo", {})}
    row.apply(user, claims, keep=kwargs.get("request"))


def on_added(request: HttpRequest, sociallogin: Any, **kwargs: Any) -> None:
    """Audit that a signed-in user connected an identity."""
    about, user = f"at provider {sociallogin.account.provider}", sociallogin.user
    record("user.linked", request=request, actor=user, object=user, reason=about)


def on_removed(request: HttpRequest, socialaccount: Any, **kwargs: Any) -> None:
    """Audit that a signed-in user disconnected an identity, and remove its roles."""
    unlink(request, socialaccount, socialaccount.user)
