"""allauth's pages for the old password and the second step, with further checks."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import get_adapter
from allauth.account.forms import ChangePasswordForm
from allauth.account.internal.stagekit import unstash_login
from allauth.mfa.base.views import AuthenticateView
from allauth.mfa.models import Authenticator
from django.contrib.auth.views import LogoutView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from accounts.authentication.adapters import access_revoked_since, restart_sign_in


class OldPasswordForm(ChangePasswordForm):
    """allauth's form, which checks the old password under the lock-out."""

    def clean_oldpassword(self) -> str:
        """Count the attempt, which allauth does not. Raises ValidationError."""
        old = str(self.cleaned_data["oldpassword"])
        if not get_adapter().reauthenticate(self.user, old):
            raise get_adapter().validation_error("enter_current_password")
        return old


class SecondStepView(AuthenticateView):
    """allauth's second step: a code or a passkey."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Restart the sign-in if the account's access was revoked.

        allauth raises an exception if the account was deleted meanwhile. It redirects
        in a loop if the account's second factors were.
        """
        unfinished = unstash_login(request, peek=True)
        if unfinished and access_revoked_since(request, unfinished.user):
            return restart_sign_in(request)
        return super().dispatch(request, *args, **kwargs)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Offer a passkey only to people who have one."""
        context: dict[str, Any] = super().get_context_data(**kwargs)
        rows = Authenticator.objects.filter(user=self.stage.login.user)
        context["MFA_SUPPORTED_TYPES"] = list(rows.values_list("type", flat=True))
        return context


class SignOutView(LogoutView):
    """POST signs out. GET, as from a bookmark, shows the button."""

    http_method_names = ["get", "post", "options"]

    def get(self, request: HttpRequest) -> HttpResponse:
        if not request.user.is_authenticated:
            return redirect("account_login")
        return render(request, "account/sign_out.html")
