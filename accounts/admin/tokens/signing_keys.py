"""Signing keys in the admin: view, rotate, retire."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from accounts.admin_site.base import ReadOnlyAdmin, badge, may
from accounts.admin_site.navigation.groups import Section
from accounts.audit.record import record
from accounts.authorization.delegation import objection_to_retiring
from accounts.http.relative_times import time_element
from accounts.models import SigningKey
from accounts.models.signing_keys import KeyState
from accounts.tokens.jwts import public_jwk

LOOKS = {KeyState.ACTIVE: "good", KeyState.RETIRING: "warn"}
"""State -> CSS class of its badge."""


@admin.register(SigningKey)
class SigningKeyAdmin(ReadOnlyAdmin[SigningKey]):
    """Keys that sign tokens; private keys are never shown."""

    place = (Section.SETTINGS, 30)
    intro = gettext_lazy(
        "Keys that sign tokens. Private keys are encrypted and never shown."
    )
    list_display = ("short_kid", "algorithm", "state_shown", "activated_at", "needed")
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
        "needed",
        "published_as",
    )
    actions = ("retire",)
    change_list_template = "admin/accounts/signingkey/change_list.html"

    @admin.display(description=gettext_lazy("key ID"), ordering="kid")
    def short_kid(self, obj: SigningKey) -> str:
        return f"{obj.kid[:12]}..." if len(obj.kid) > 15 else obj.kid

    @admin.display(description=gettext_lazy("state"), ordering="state")
    def state_shown(self, obj: SigningKey) -> SafeString:
        return badge(obj.get_state_display(), LOOKS.get(KeyState(obj.state), ""))

    @admin.display(description=gettext_lazy("needed until"))
    def needed(self, obj: SigningKey) -> str:
        """Expiry of the last token signed with the key."""
        words = {
            KeyState.NEXT: _("not used yet"),
            KeyState.ACTIVE: _("in use"),
            KeyState.RETIRED: _("ended"),
        }
        if obj.state in words:
            return words[KeyState(obj.state)]
        if obj.needed_until <= timezone.now():
            return _("no longer needed: retire it, or run manage.py purge")
        return time_element(obj.needed_until)

    @admin.display(description=gettext_lazy("published at /oauth/jwks.json as"))
    def published_as(self, obj: SigningKey) -> SafeString:
        """The public JWK (RFC 7517)."""
        if obj.state == KeyState.RETIRED:
            return badge(_("not published (retired)"))
        text = json.dumps(public_jwk(obj), indent=2)
        return format_html('<pre class="block">{}</pre>', text)

    def has_rotate_permission(self, request: HttpRequest) -> bool:
        """The change permission means rotating and retiring; no user can edit keys."""
        return may(request, "accounts.change_signingkey")

    @admin.action(
        description=gettext_lazy("Retire the selected keys and reject their tokens"),
        permissions=["rotate"],
    )
    def retire(self, request: HttpRequest, queryset: Any) -> None:
        """Retire keys that no longer sign; the active key must be rotated first."""
        actor: Any = request.user
        for key in queryset:
            if key.state == KeyState.ACTIVE:
                message = _("%s signs new tokens. Rotate the key first.") % key.kid
                self.message_user(request, message, messages.ERROR)
            elif message := objection_to_retiring(actor, key):
                self.message_user(request, message, messages.ERROR)
            elif key.state != KeyState.RETIRED:
                key.move(KeyState.RETIRED)
                record(
                    "key.retired",
                    actor=request.user,
                    request=request,
                    object=key.kid,
                    subject=key,
                )
                self.message_user(request, _("%s is retired.") % key.kid)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.rotate)
        urls = [path("rotate/", view, name="accounts_signingkey_rotate")]
        return urls + super().get_urls()

    @method_decorator(require_POST)
    def rotate(self, request: HttpRequest) -> HttpResponseRedirect:
        """Activate the next key."""
        if self.has_rotate_permission(request):
            key = SigningKey.objects.rotate(actor=request.user)
            message = (
                _(
                    "New tokens are signed with %s. Existing tokens stay valid "
                    "until they expire."
                )
                % key.kid
            )
            self.message_user(request, message, messages.SUCCESS)
        else:
            self.message_user(
                request, _("You do not have permission to rotate keys."), messages.ERROR
            )
        return HttpResponseRedirect(reverse("admin:accounts_signingkey_changelist"))

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        context = {"may_rotate": self.has_rotate_permission(request)}
        return super().changelist_view(request, {**context, **(extra_context or {})})
