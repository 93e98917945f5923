"""Wrong passwords counted: who is locked out from where, and opening the door again."""

from __future__ import annotations

from typing import Any

from axes.models import AccessAttempt
from django.contrib import admin, messages
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from accounts.admin.base import ReadOnly, may
from accounts.lockout import unlock
from accounts.site import Section


@admin.register(AccessAttempt)
class AccessAttemptAdmin(ReadOnly[AccessAttempt]):
    """Look and unlock; names are as typed, whether or not an account is called so."""

    place = (Section.SYSTEM, 20)
    list_display = ("username", "ip_address", "failures_since_start", "attempt_time")
    fields = (*list_display, "user_agent", "path_info")
    search_fields = ("username", "ip_address")
    actions = ("unlock",)

    def has_unlock_permission(self, request: HttpRequest) -> bool:
        """Those who may change accounts."""
        return may(request, "accounts.change_user")

    @admin.action(
        description=_("Unlock the selected accounts and addresses"),
        permissions=["unlock"],
    )
    def unlock(self, request: HttpRequest, queryset: Any) -> None:
        """Forget what is counted for these names and for these addresses."""
        pairs = set(queryset.values_list("username", "ip_address"))
        forgotten = sum(
            unlock(username=name or "", address=ip or "", actor=request.user)
            for name, ip in sorted(pairs, key=str)
        )
        told_unlocked(self, request, forgotten)


def told_unlocked(page: Any, request: HttpRequest, forgotten: int) -> None:
    """How much was forgotten, in words."""
    told = ngettext("%d count forgotten.", "%d counts forgotten.", forgotten)
    page.message_user(request, told % forgotten, messages.SUCCESS)
