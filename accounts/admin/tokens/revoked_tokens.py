"""Revoked tokens; add one by pasting the token or its id."""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from accounts.admin_site.base import ActorFormMixin, ReadOnlyAdmin, may
from accounts.admin_site.large_changelists import LargeChangelistMixin
from accounts.admin_site.navigation.groups import Section
from accounts.authorization.delegation import objection_to_revoking
from accounts.models import IssuedToken, RevokedToken, User
from accounts.tokens.lookup import find_token

JTI = re.compile(r"[0-9a-f]{32}", re.ASCII)


class RevokeForm(forms.ModelForm):  # type: ignore[type-arg]
    """One field that accepts a whole token or its id."""

    token_or_id = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 4, "autocomplete": "off"}),
        label=_("Token or token ID"),
        help_text=_("Paste a token or its ID. The token itself is not stored."),
    )

    actor: User

    class Meta:
        model = RevokedToken
        fields = ("reason",)

    def clean_token_or_id(self) -> IssuedToken:
        """The token's row. Pasting the whole token is enough to revoke it."""
        pasted = strip_bearer(self.cleaned_data["token_or_id"])
        row = find_pasted_token(pasted)
        if row is None:
            raise forms.ValidationError(
                _(
                    "This is neither a token issued here nor a token ID. Check "
                    "what you pasted."
                )
            )
        if row.state == "revoked":
            raise forms.ValidationError(_("This token is already revoked."))
        if row.state == "expired":
            raise forms.ValidationError(_("This token has already expired."))
        problem = objection_to_revoking(self.actor, row.user) if row.user else ""
        if problem and JTI.fullmatch(pasted.lower()):
            raise forms.ValidationError(problem)
        return row


def strip_bearer(text: str) -> str:
    """The pasted text without whitespace and without "Bearer"."""
    return "".join(text.split()).removeprefix("Bearer")


def find_pasted_token(pasted: str) -> IssuedToken | None:
    """The row of a pasted token or `jti`."""
    pasted = strip_bearer(pasted)
    if JTI.fullmatch(pasted.lower()):
        return IssuedToken.objects.filter(jti=pasted.lower()).first()
    return find_token(pasted)


@admin.register(RevokedToken)
class RevokedTokenAdmin(
    ActorFormMixin[RevokedToken], LargeChangelistMixin, ReadOnlyAdmin[RevokedToken]
):
    """The revocation table; rows are added but never edited or deleted by hand."""

    place = (Section.CLIENTS, 30)
    intro = _("Tokens that are rejected although they have not expired.")
    nothing_yet = _(
        "No revoked tokens. To revoke one, add it here by its ID or the token itself."
    )
    list_display = ("jti", "revoked_at", "revoked_by", "reason", "until")
    search_fields = ("jti", "revoked_by")
    search_help_text = _("Enter the start of a token ID or a full username.")
    ordering = ("-revoked_at",)
    search_lookups = ("jti__prefix", "revoked_by")
    newest_first = ("-revoked_at",)

    def history_query(self, obj: Any) -> dict[str, str]:
        return {"token_id": obj.jti}

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request, "accounts.add_revokedtoken")

    def get_form(  # type: ignore[override]
        self, request: Any, obj: Any = None, **kwargs: Any
    ) -> Any:
        """The form with the paste field to add; the plain row to view."""
        if obj is None:
            kwargs["form"] = RevokeForm
        return super().get_form(request, obj, **kwargs)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return ("token_or_id", "reason")
        return ("jti", "revoked_at", "revoked_by", "reason", "until")

    def save_model(self, request: Any, obj: Any, form: Any, change: bool) -> None:
        """Let `TokenQuerySet.revoke` record the event and add the row."""
        row = form.cleaned_data["token_or_id"]
        reason = form.cleaned_data["reason"] or "revoked in the admin"
        same = IssuedToken.objects.filter(pk=row.pk)
        same.revoke(actor=request.user, reason=reason)
        obj.jti = row.jti
        obj.refresh_from_db()
