"""Signing keys: look, rotate, retire."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from accounts.admin.base import ReadOnly, may
from accounts.audit import record
from accounts.models import SigningKey
from accounts.models.keys import KeyState
from accounts.site import Section


@admin.register(SigningKey)
class SigningKeyAdmin(ReadOnly[SigningKey]):
    """The keys tokens are signed with; private parts are never shown."""

    place = (Section.SYSTEM, 10)
    intro = gettext_lazy(
        "What tokens are signed with. Private parts are encrypted and never shown."
    )
    list_display = ("kid", "algorithm", "state", "created_at", "needed_until")
    list_filter = ("state", "algorithm")
    fields = (
        "kid",
        "algorithm",
        "state",
        "public_pem",
        "created_at",
        "activated_at",
        "retiring_at",
        "retired_at",
        "needed_until",
    )
    actions = ("retire",)
    change_list_template = "admin/accounts/signingkey/change_list.html"

    def has_rotate_permission(self, request: HttpRequest) -> bool:
        """Those who may change keys may rotate and retire; nobody edits them."""
        return may(request, "accounts.change_signingkey")

    @admin.action(
        description=gettext_lazy("Retire the selected keys: refuse their tokens now"),
        permissions=["rotate"],
    )
    def retire(self, request: HttpRequest, queryset: Any) -> None:
        """Retire retiring keys; the active one has to be rotated away first."""
        for key in queryset:
            if key.state == KeyState.ACTIVE:
                told = _("%s signs new tokens: rotate first.") % key.kid
                self.message_user(request, told, messages.ERROR)
            elif key.state != KeyState.RETIRED:
                key.move(KeyState.RETIRED)
                record(
                    "key.retired", actor=request.user, request=request, object=key.kid
                )
                self.message_user(request, _("%s is retired.") % key.kid)

    def get_urls(self) -> list[URLPattern]:
        """With the button's target."""
        view = self.admin_site.admin_view(self.rotate)
        own = [path("rotate/", view, name="accounts_signingkey_rotate")]
        return own + super().get_urls()

    @method_decorator(require_POST)
    def rotate(self, request: HttpRequest) -> HttpResponseRedirect:
        """Put the next key to use."""
        if self.has_rotate_permission(request):
            key = SigningKey.objects.rotate(actor=request.user)
            told = _("New tokens are signed with %s; old ones stay valid.") % key.kid
            self.message_user(request, told, messages.SUCCESS)
        else:
            self.message_user(request, _("You may not rotate keys."), messages.ERROR)
        return HttpResponseRedirect(reverse("admin:accounts_signingkey_changelist"))

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Tell the template whether to offer the button."""
        context = {"may_rotate": self.has_rotate_permission(request)}
        return super().changelist_view(request, {**context, **(extra_context or {})})
