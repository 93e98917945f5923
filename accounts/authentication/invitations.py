"""The page behind an invitation link: choose a password or a passkey, then sign in."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import get_adapter
from allauth.account.forms import SetPasswordForm
from allauth.account.internal.flows.login import perform_login, record_authentication
from allauth.account.models import Login
from allauth.mfa.webauthn.internal import auth, flows
from django.conf import settings
from django.contrib.auth import password_validation
from django.db import transaction
from django.forms import BaseForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from accounts.authentication.passkey_forms import FirstPasskeyForm
from accounts.authentication.passwords.hashers import prehashed_password
from accounts.authentication.passwords.validation import RevokeOnPasswordChange
from accounts.authorization.invitations import (
    InvitationOver,
    Issued,
    accept_invitation,
    invitation_url,
    usable_invitation,
)
from accounts.crypto.secrets import secret_hash
from accounts.http.client_address import client_address
from accounts.models import User

SESSION_KEY = "invitation"
"""Session key of the token's hash, while the person chooses a password."""
NO_MAIL = ("dummy", "console")
"""Django's mail backends that send nothing."""


class NewPasswordForm(SetPasswordForm):
    """Without the rule about changed passwords: this is the first one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rules = [
            rule
            for rule in password_validation.get_default_password_validators()
            if not isinstance(rule, RevokeOnPasswordChange)
        ]
        self.fields[
            "password1"
        ].help_text = password_validation.password_validators_help_text_html(rules)


def mail_configured() -> bool:
    return settings.EMAIL_BACKEND.split(".")[-2] not in NO_MAIL


def mail_invitation(issued: Issued) -> bool:
    """Mail the link to the account's address; False if there is none, or no mail."""
    row, raw = issued
    if not (row.user.email and mail_configured()):
        return False
    row.mailed_to = row.user.email
    row.save(update_fields=["mailed_to"])
    context = {
        "user": row.user,
        "invitation": row,
        "url": invitation_url(raw),
    }
    get_adapter().send_mail("account/email/invitation", row.mailed_to, context)
    return True


def invalid_link(request: HttpRequest) -> HttpResponse:
    """One page for all links that do not work, so that it tells nothing of accounts."""
    request.session.pop(SESSION_KEY, None)
    return render(request, "account/invitation_invalid.html", status=404)


@method_decorator(never_cache, name="dispatch")
class InvitationLinkView(View):
    """GET with the token: keep its hash in the session and leave the address.

    The next page has no token in its address, so neither a referrer nor the browser's
    history reveals it. Nothing is used up yet: mail scanners open links, too.
    """

    def get(self, request: HttpRequest, token: str) -> HttpResponse:
        hashed = secret_hash(token)
        if usable_invitation(hashed) is None:
            response = invalid_link(request)
        else:
            request.session[SESSION_KEY] = hashed
            response = redirect("invitation")
        response["Referrer-Policy"] = "no-referrer"
        return response


@method_decorator(never_cache, name="dispatch")
@method_decorator(
    sensitive_post_parameters("password1", "password2", "credential"), name="dispatch"
)
class InvitationView(View):
    """GET: the forms. POST: a password, or a new passkey as `credential`."""

    user: User

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        self.hashed = str(request.session.get(SESSION_KEY, ""))
        row = usable_invitation(self.hashed)
        if row is None:
            return invalid_link(request)
        self.row, self.user = row, row.user
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.show(NewPasswordForm(user=self.user))

    def show(self, form: BaseForm, error: str = "", status: int = 200) -> HttpResponse:
        context: dict[str, Any] = {
            "form": form,
            "error": error,
            "person": self.user,
            "inviter": "" if self.row.by_command else self.row.inviter,
        }
        if not self.request.user.is_authenticated:
            options = auth.begin_registration(self.user, passwordless=True)
            context["js_data"] = {"creation_options": options}
        return render(self.request, "account/invitation.html", context, status=status)

    def post(self, request: HttpRequest) -> HttpResponse:
        if request.user.is_authenticated:
            # An administrator who tries the link must not lose their own session.
            return self.get(request)
        passkey = "credential" in request.POST
        kind: Any = FirstPasskeyForm if passkey else NewPasswordForm
        form = kind(user=self.user, data=request.POST)
        if not form.is_valid():
            return self.show_errors(form, passkey)
        accept = self.accept_passkey if passkey else self.accept_password
        try:
            return accept(form.cleaned_data)
        except InvitationOver:
            return invalid_link(request)

    def show_errors(self, form: BaseForm, passkey: bool) -> HttpResponse:
        """The page with the errors; those of a passkey have no field to stand at."""
        if not passkey:
            return self.show(form, status=400)
        texts = [str(text) for errors in form.errors.values() for text in errors]
        return self.show(NewPasswordForm(user=self.user), " ".join(texts), status=400)

    def accept_password(self, data: dict[str, Any]) -> HttpResponse:
        """Raises InvitationOver."""
        raw = data["password1"]
        with prehashed_password(raw), transaction.atomic():
            user = self.accept()
            user.set_password(raw)
            user.save(update_fields=["password"])
        user.refresh_from_db()
        record_authentication(self.request, user, method="password")
        response: HttpResponse = perform_login(self.request, Login(user=user))
        return response

    def accept_passkey(self, data: dict[str, Any]) -> HttpResponse:
        """Raises InvitationOver."""
        with transaction.atomic():
            user = self.accept()
            passkey = flows.signup_authenticator(
                self.request, user, data["name"], data["credential"]
            )
        user.refresh_from_db()
        response: HttpResponse = flows.perform_passwordless_login(
            self.request, passkey, Login(user=user)
        )
        return response

    def accept(self) -> User:
        user = accept_invitation(self.hashed, client_address(self.request))
        self.request.session.pop(SESSION_KEY, None)
        return user
