"""allauth's adapter: accounts are made by an administrator, not by visitors."""

from __future__ import annotations

import time
from typing import Any

from allauth.account import app_settings
from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.forms import ResetPasswordForm
from allauth.account.internal.flows.login import get_authentication_records
from allauth.account.internal.flows.reauthentication import did_recently_reauthenticate
from allauth.account.internal.stagekit import clear_login
from allauth.core import context as current
from allauth.core.exceptions import ImmediateHttpResponse
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.views import redirect_to_login
from django.contrib.sites.shortcuts import get_current_site
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _

from accounts.authentication import mail
from accounts.http.client_address import client_address
from accounts.models import User

UNKNOWN_ADDRESS = "0.0.0.0"  # noqa: S104 - not bound to: a peer without address


DIGEST_SESSION_KEY = "auth_digest"
"""Session key of the account's digest while a sign-in is under way."""


def authenticated_recently(request: HttpRequest) -> bool:
    """Whether this session gave some proof within allauth's span of minutes."""
    records = get_authentication_records(request, request.user)
    last = max((record["at"] for record in records), default=0)
    return bool(time.time() - last < app_settings.REAUTHENTICATION_TIMEOUT)


def access_revoked_since(request: HttpRequest, user: Any) -> bool:
    """Whether access ended, or the account, after its password was given here."""
    return user is None or request.session.get(DIGEST_SESSION_KEY) != user.auth_digest


def restart_sign_in(request: HttpRequest) -> HttpResponse:
    """Forget the sign-in that is under way."""
    clear_login(request)
    request.session.pop(DIGEST_SESSION_KEY, None)
    messages.error(request, _("Your access was ended: sign in again."))
    return redirect("account_login")


class AccountAdapter(DefaultAccountAdapter):
    """Sign-up is closed; all else is allauth's own."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Never."""
        return False

    def pre_login(self, request: HttpRequest, user: Any, **known: Any) -> Any:
        """Note what the account was like when its password was given."""
        request.session[DIGEST_SESSION_KEY] = user.auth_digest
        return super().pre_login(request, user, **known)

    def login(self, request: HttpRequest, user: Any) -> None:
        """As allauth's, unless access ended between the password and the second step.

        A sign-in half done is in no list of sessions, and lasts for minutes.
        """
        if access_revoked_since(request, user):
            raise ImmediateHttpResponse(restart_sign_in(request))
        del request.session[DIGEST_SESSION_KEY]
        super().login(request, user)

    def is_safe_url(self, url: str) -> bool:
        """As allauth's, which would raise a ValueError for `http://[`."""
        try:
            return bool(super().is_safe_url(url))
        except ValueError:
            return False

    def get_client_ip(self, request: HttpRequest) -> str:
        """As everywhere (accounts/http/client_address.py)."""
        return client_address(request) or UNKNOWN_ADDRESS

    def get_reauthentication_methods(self, user: Any) -> list[dict[str, Any]]:
        """By a factor where there is one: a password must not remove it."""
        methods: list[dict[str, Any]] = super().get_reauthentication_methods(user)
        factors = [m for m in methods if m["id"] != "reauthenticate"]
        return factors or methods

    def is_reauthentication_required(self, *, app: str, **kwargs: Any) -> bool:
        """As allauth's, with two things it does not do.

        It asks people without password and factor for nothing, so whoever has their
        session for a moment could add a passkey: they sign in again. And it keeps a
        posted form in the session meanwhile, codes too: people press again.
        """
        due = bool(super().is_reauthentication_required(app=app, **kwargs))
        request = current.request
        methods = self.get_reauthentication_methods(request.user)
        if due and not methods and not authenticated_recently(request):
            logout(request)
            raise ImmediateHttpResponse(redirect_to_login(request.path))
        if (
            due
            and request.method == "POST"
            and not did_recently_reauthenticate(request)
        ):
            page = redirect_to_login(request.path, login_url=methods[0]["url"])
            raise ImmediateHttpResponse(page)
        return due

    def authentication_failed(self, request: HttpRequest, **credentials: Any) -> None:
        """On record already: Django's own signal told (signals.py)."""

    def send_mail(self, template_prefix: str, email: str, context: Any) -> None:
        """Build it now, send it after the answer (accounts/authentication/mail.py)."""
        about = template_prefix.rpartition("/")[2]
        asked = mail.mail_request(current.request)
        with current.request_context(asked):
            site = get_current_site(asked)
            given = {**context, "request": asked, "email": email, "current_site": site}
            message = self.render_mail(template_prefix, email, given, mail.headers())
        mail.send(message, about, actor=context.get("user"), request=asked)


class ResetForm(ResetPasswordForm):
    """Asks for a new password. Known and unknown addresses take the same time.

    Who has the address is looked up after the answer, as is all that follows.
    """

    def clean_email(self) -> str:
        """As it was typed."""
        return str(self.cleaned_data["email"])

    def save(self, request: HttpRequest, **kwargs: Any) -> str:
        """Have it looked up and sent."""
        email, asked = self.cleaned_data["email"], mail.mail_request(request)

        def work() -> None:
            with current.request_context(asked):
                self.users = User.objects.filter(is_active=True).with_email(email)
                ResetPasswordForm.save(self, asked, **kwargs)

        mail.run_after_response("password_reset_key", work, request=asked)
        return str(email)
