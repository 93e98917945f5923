"""Sign-in providers and their claim rules; only superusers change them."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from accounts.admin_site.base import BoundedInline, SuperusersChangeAdmin
from accounts.admin_site.navigation.groups import Section
from accounts.models import ClaimRule, SignInProvider


class ProviderForm(forms.ModelForm):  # type: ignore[type-arg]
    """The client secret can be set but is never displayed."""

    client_secret = forms.CharField(
        label=_("Client secret"),
        required=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text=_("Stored encrypted. Leave empty to keep the current secret."),
    )

    class Meta:
        model = SignInProvider
        fields = (
            "name",
            "slug",
            "issuer",
            "client_id",
            "client_secret",
            "enabled",
            "sign_up",
            "link_by_email",
            "roles_last",
        )


class ClaimRuleInline(BoundedInline):
    model = ClaimRule
    extra = 1


@admin.register(SignInProvider)
class SignInProviderAdmin(SuperusersChangeAdmin[SignInProvider]):
    """Claim rules grant roles, so only superusers change them; auditors read."""

    noun = "provider"
    place = (Section.SETTINGS, 20)
    form = ProviderForm
    intro = _("OpenID providers with which people sign in instead of a password.")
    nothing_yet = _(
        "No sign-in providers yet. Add one, then register its callback URL with the "
        "provider. Its page shows the URL."
    )
    list_display = ("name", "issuer", "enabled", "sign_up", "link_by_email")
    readonly_fields = ("callback_url",)
    inlines = (ClaimRuleInline,)

    @admin.display(description=_("callback URL"))
    def callback_url(self, obj: SignInProvider) -> Any:
        """The redirect URI to register at the provider."""
        slug = obj.slug or "NAME"
        path = reverse("openid_connect_callback", args=(slug,))
        return format_html(
            '<code data-copy="{}" data-copied="{}">{}{}</code>',
            _("Copy"),
            _("Copied"),
            settings.ISSUER_URL,
            path,
        )

    def save_model(
        self, request: HttpRequest, obj: SignInProvider, form: Any, change: bool
    ) -> None:
        if form.cleaned_data.get("client_secret"):
            obj.set_secret(form.cleaned_data["client_secret"])
        super().save_model(request, obj, form, change)

    def save_formset(
        self, request: HttpRequest, form: Any, formset: Any, change: bool
    ) -> None:
        super().save_formset(request, form, formset, change)
        for rule in (
            *formset.new_objects,
            *(r for r, _names in formset.changed_objects),
        ):
            self.record_change(
                request, "rule_set", form.instance, {"rule": [None, str(rule)]}
            )
        for rule in formset.deleted_objects:
            details = {"rule": [str(rule), None]}
            self.record_change(request, "rule_deleted", form.instance, details)
