"""allauth's account adapter; administrators create accounts, so sign-up is closed."""

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
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _

from accounts.authentication import mail
from accounts.http.client_address import client_address
from accounts.models import User

# allauth needs an address; a Unix socket peer has none.
UNKNOWN_ADDRESS = "0.0.0.0"  # noqa: S104 - no server binds to it


DIGEST_SESSION_KEY = "auth_digest"
"""Session key of the account's digest between the password and the second step."""


def authenticated_recently(request: HttpRequest) -> bool:
    """Whether this session authenticated within REAUTHENTICATION_TIMEOUT seconds."""
    records = get_authentication_records(request, request.user)
    last = max((record["at"] for record in records), default=0)
    return bool(time.time() - last < app_settings.REAUTHENTICATION_TIMEOUT)


def access_revoked_since(request: HttpRequest, user: Any) -> bool:
    """Whether access was revoked or the account deleted after the password step."""
    digest = request.session.get(DIGEST_SESSION_KEY, "")
    return user is None or not user.accepts_digest(digest)


def restart_sign_in(request: HttpRequest) -> HttpResponse:
    """Discard the unfinished sign-in and redirect to the sign-in page."""
    clear_login(request)
    request.session.pop(DIGEST_SESSION_KEY, None)
    messages.error(request, _("Your access was revoked. Sign in again."))
    return redirect("account_login")


class AccountAdapter(DefaultAccountAdapter):
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def pre_login(self, request: HttpRequest, user: Any, **kwargs: Any) -> Any:
        """Store the account's digest, so that `login` notices a revocation."""
        request.session[DIGEST_SESSION_KEY] = user.auth_digest
        return super().pre_login(request, user, **kwargs)

    def login(self, request: HttpRequest, user: Any) -> None:
        """Refuse if access was revoked between the password and the second step.

        Revocation cannot end an unfinished sign-in: no list of sessions contains it.
        """
        if access_revoked_since(request, user):
            raise ImmediateHttpResponse(restart_sign_in(request))
        del request.session[DIGEST_SESSION_KEY]
        super().login(request, user)

    def is_safe_url(self, url: str) -> bool:
        """Return False for `http://[`, for which allauth raises a ValueError."""
        try:
            return bool(super().is_safe_url(url))
        except ValueError:
            return False

    def get_client_ip(self, request: HttpRequest) -> str:
        """Use Portico's proxy settings instead of allauth's."""
        return client_address(request) or UNKNOWN_ADDRESS

    def get_reauthentication_methods(self, user: Any) -> list[dict[str, Any]]:
        """Omit the password if there is a factor: it must not remove the factor."""
        methods: list[dict[str, Any]] = super().get_reauthentication_methods(user)
        factors = [m for m in methods if m["id"] != "reauthenticate"]
        return factors or methods

    def is_reauthentication_required(self, *, app: str, **kwargs: Any) -> bool:
        """Add two rules to allauth's.

        A user without password and factor signs in again. allauth asks for nothing, so
        a stolen session could add a passkey. A posted form is not stored in the session
        as allauth does, because it may contain codes; the user submits it again.
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
        """Record nothing: Django's signal records it (signals.py)."""

    def send_mail(self, template_prefix: str, email: str, context: Any) -> None:
        """Render the mail now and send it after the response (see mail.py)."""
        about = template_prefix.rpartition("/")[2]
        request = mail.mail_request(current.request)
        with current.request_context(request):
            site = {"current_site": mail.site()}
            variables = {**context, "request": request, "email": email, **site}
            headers = mail.headers()
            message = self.render_mail(template_prefix, email, variables, headers)
        mail.send(message, about, actor=context.get("user"), request=request)


class ResetForm(ResetPasswordForm):
    """Requests a password reset; known and unknown addresses take the same time.

    The account is looked up after the response was sent.
    """

    def clean_email(self) -> str:
        """Skip allauth's look-up of the account, whose time reveals the account."""
        return str(self.cleaned_data["email"])

    def save(self, request: HttpRequest, **kwargs: Any) -> str:
        """Look the account up and send the mail after the response."""
        email, for_mail = self.cleaned_data["email"], mail.mail_request(request)

        def work() -> None:
            with current.request_context(for_mail):
                self.users = User.objects.filter(is_active=True).with_email(email)
                ResetPasswordForm.save(self, for_mail, **kwargs)

        mail.run_after_response("password_reset_key", work, request=for_mail)
        return str(email)
