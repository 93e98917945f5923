"""Revoked tokens: look, and add by pasting a token or its id."""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import ReadOnly, may
from accounts.keyring import TokenRefused, verify
from accounts.models import IssuedToken, RevokedToken
from accounts.site import Section

JTI = re.compile(r"[0-9a-f]{32}", re.ASCII)


class RevokeForm(forms.ModelForm):  # type: ignore[type-arg]
    """One box that takes a whole token or its id."""

    token_or_id = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 4, "autocomplete": "off"}),
        label=_("Token or token id"),
        help_text=_("Paste either. The token itself is not kept."),
    )

    class Meta:
        model = RevokedToken
        fields = ("reason",)

    def clean_token_or_id(self) -> IssuedToken:
        """The row of the token meant."""
        pasted = "".join(self.cleaned_data["token_or_id"].split())
        row = IssuedToken.objects.filter(jti=id_of(pasted)).first()
        if row is None:
            raise forms.ValidationError(_("No token with this id was ever issued."))
        if row.state == "revoked":
            raise forms.ValidationError(_("This token is revoked already."))
        if row.state == "expired":
            raise forms.ValidationError(_("This token has expired already."))
        return row


def id_of(pasted: str) -> str:
    """The `jti` in what was pasted. Raises forms.ValidationError."""
    pasted = pasted.removeprefix("Bearer")
    if JTI.fullmatch(pasted.lower()):
        return pasted.lower()
    try:
        return str(verify(pasted, allow_expired=True)["jti"])
    except TokenRefused as error:
        raise forms.ValidationError(
            _("This is neither a token issued here nor a token id (32 hex digits).")
        ) from error


@admin.register(RevokedToken)
class RevokedTokenAdmin(ReadOnly[RevokedToken]):
    """The revocation table. Rows are added, never edited or deleted by hand."""

    place = (Section.TOKENS, 20)
    intro = _("Tokens refused from now on, although they have not expired.")
    nothing_yet = _("Nothing is revoked. Add one here by pasting a token or its id.")
    list_display = ("jti", "revoked_at", "revoked_by", "reason", "until")
    search_fields = ("jti", "revoked_by", "reason")
    date_hierarchy = "revoked_at"
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """By those who may."""
        return may(request, "accounts.add_revokedtoken")

    def get_form(  # type: ignore[override]
        self, request: Any, obj: Any = None, **kwargs: Any
    ) -> Any:
        """The paste box to add; the plain row to look."""
        if obj is None:
            kwargs["form"] = RevokeForm
        return super().get_form(request, obj, **kwargs)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Likewise."""
        if obj is None:
            return ("token_or_id", "reason")
        return ("jti", "revoked_at", "revoked_by", "reason", "until")

    def save_model(self, request: Any, obj: Any, form: Any, change: bool) -> None:
        """Revoke through the one verb, which records it."""
        row = form.cleaned_data["token_or_id"]
        reason = form.cleaned_data["reason"] or "revoked in the admin"
        same = IssuedToken.objects.filter(pk=row.pk)
        same.revoke(actor=request.user, reason=reason)
        obj.jti = row.jti
        obj.refresh_from_db()
