"""Personal access tokens: create, show once, list with last use, revoke."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_variables

from accounts.authentication.pages import Page
from accounts.authorization.delegation import may_enter_admin
from accounts.authorization.role_grants import current_grants
from accounts.errors import OAuthError
from accounts.http.client_address import client_address
from accounts.http.ip_networks import HELP, validate_networks
from accounts.models import IssuedToken, TokenKind, User
from accounts.models.roles import ACT_WITHIN_ROLES, ADMIN_API, Scope
from accounts.tokens.issue import issue_personal_token

MAX_DAYS = 365


def scope_label(name: str, words: str) -> str:
    """Description and name of a scope."""
    return f"{words} ({name})" if words != name else name


class TokenForm(forms.Form):
    """Name, lifetime and scopes; the scopes are limited to the user's own."""

    name = forms.CharField(max_length=100, label=gettext_lazy("Purpose"))
    days = forms.IntegerField(
        min_value=1,
        max_value=MAX_DAYS,
        initial=90,
        label=gettext_lazy("Expires after (days)"),
        widget=forms.NumberInput(attrs={"list": "usual-days"}),
        help_text=gettext_lazy("At most 365 days."),
    )
    networks = forms.CharField(
        required=False,
        max_length=500,
        validators=[validate_networks],
        label=gettext_lazy("Allowed IP addresses"),
        help_text=HELP,
    )
    scopes = forms.MultipleChoiceField(
        widget=forms.CheckboxSelectMultiple,
        initial=[ACT_WITHIN_ROLES],
        label=gettext_lazy("Access"),
    )

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        scopes = sorted(current_grants(user.pk)[1])
        words = Scope.objects.descriptions(scopes)
        field = self.fields["scopes"]
        assert isinstance(field, forms.MultipleChoiceField)  # noqa: S101
        field.choices = [
            (ACT_WITHIN_ROLES, _("Use my tools, except sensitive ones.")),
            *((name, scope_label(name, words[name])) for name in scopes),
        ]
        if may_enter_admin(user):
            text = _("Administer Portico through /api/v1/, without any tool.")
            field.choices += [(ADMIN_API, scope_label(ADMIN_API, text))]

    def clean_scopes(self) -> list[str]:
        """The scope of the administration API stands alone."""
        names: list[str] = self.cleaned_data["scopes"]
        if ADMIN_API in names and len(names) > 1:
            raise forms.ValidationError(
                _(
                    "A token for the administration API cannot use tools. "
                    "Create a second token for them."
                )
            )
        return names


class PersonalTokensView(Page):
    """GET: list and form. POST creates or revokes one."""

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.show(TokenForm(self.me))

    def show(self, form: TokenForm, raw: str = "", status: int = 200) -> HttpResponse:
        """The page; `raw` is the new token, which only this response shows."""
        mine = IssuedToken.objects.with_revoked().filter(
            user=self.me, kind=TokenKind.PERSONAL
        )
        shown = list(mine[:100])
        words = Scope.objects.in_words(row.scope for row in shown)
        rows = [(row, words[row.scope]) for row in shown]
        context = {"form": form, "raw": raw, "rows": rows}
        return render(self.request, "portal/tokens.html", context, status=status)

    @sensitive_variables("raw")
    def post(self, request: HttpRequest) -> HttpResponse:
        if "revoke" in request.POST:
            return self.revoke(request.POST["revoke"])
        form = TokenForm(self.me, request.POST)
        if not form.is_valid():
            return self.show(form, status=400)
        try:
            raw = self.create_token(form.cleaned_data)
        except OAuthError as error:
            # The user lost access or a role after the form was validated.
            form.add_error(None, str(error))
            return self.show(form, status=400)
        return self.show(TokenForm(self.me), raw)

    def create_token(self, data: dict[str, Any]) -> str:
        """The new token. Raises OAuthError."""
        _row, raw = issue_personal_token(
            self.me,
            name=data["name"],
            scope=" ".join(data["scopes"]),
            lifetime=timedelta(days=data["days"]),
            address=client_address(self.request),
            networks=data["networks"],
        )
        return raw

    def revoke(self, jti: Any) -> HttpResponse:
        mine = IssuedToken.objects.filter(user=self.me, jti=str(jti))
        count = mine.revoke(actor=self.me, reason="revoked in the portal")
        if count:
            messages.success(self.request, _("Token revoked."))
        return redirect("portal-tokens")
