"""Failed sign-ins that django-axes counts, with an action to unlock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from axes.models import AccessAttempt
from django.conf import settings
from django.contrib import admin, messages
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from accounts.admin_site.base import ReadOnlyAdmin, may
from accounts.admin_site.navigation.groups import Section
from accounts.admin_site.notices import Notice, notice_finder
from accounts.authentication.lockout import name_in_words, unlock
from accounts.authorization.delegation import UNLOCK_PERMISSION, protected_users
from accounts.models import User


def attempt_title(attempt: AccessAttempt) -> str:
    text = gettext("%(user)s from %(address)s")
    return text % {"user": counted_name(attempt), "address": attempt.ip_address}


def counted_name(attempt: AccessAttempt) -> str:
    """The counted name as readers know it."""
    return name_in_words(attempt.username or "-", gettext)


# The library's own title is a moment in UTC.
AccessAttempt.__str__ = attempt_title


@admin.register(AccessAttempt)
class AccessAttemptAdmin(ReadOnlyAdmin[AccessAttempt]):
    """Names are as typed; an account with that name need not exist."""

    place, list_title = (Section.PEOPLE, 50), _("Failed sign-ins")
    intro = _(
        "Failed sign-ins that count towards a lockout. Unlock to reset the counter."
    )
    nothing_yet = _(
        "No failed sign-ins are counted. Names and addresses "
        "appear here after a wrong password."
    )
    list_display = ("name", "ip_address", "failures_since_start", "attempt_time")
    fields = (*list_display, "path_info")
    search_fields = ("username", "ip_address")
    actions = ("unlock",)

    @admin.display(description=_("user"), ordering="username")
    def name(self, attempt: AccessAttempt) -> str:
        return counted_name(attempt)

    def has_unlock_permission(self, request: HttpRequest) -> bool:
        return may(request, UNLOCK_PERMISSION)

    @admin.action(
        description=_("Unlock the selected accounts and addresses"),
        permissions=["unlock"],
    )
    def unlock(self, request: HttpRequest, queryset: Any) -> None:
        """Reset the counters of these names and addresses.

        Names of administrators are left out: unlocking them would allow unlimited
        guesses.
        """
        actor = cast(User, request.user)
        others = protected_users(actor, UNLOCK_PERMISSION)
        keep = list(others.values_list("username", flat=True))
        pairs = set(queryset.values_list("username", "ip_address"))
        count = sum(
            unlock(username=name or "", address=ip or "", keep=keep, actor=actor)
            for name, ip in sorted(pairs, key=str)
        )
        show_unlock_count(self, request, count)


def show_unlock_count(page: Any, request: HttpRequest, count: int) -> None:
    """Show how many counters were reset."""
    message = ngettext("%d counter reset.", "%d counters reset.", count)
    page.message_user(request, message % count, messages.SUCCESS)


@notice_finder("axes.view_accessattempt")
def locked_accounts() -> Iterator[Notice]:
    """Accounts that reached LOCKOUT_AFTER failures within the cool-off time."""
    since = timezone.now() - settings.AXES_COOLOFF_TIME
    rows = AccessAttempt.objects.filter(
        failures_since_start__gte=settings.LOCKOUT_AFTER, attempt_time__gt=since
    )
    names = [counted_name(row) for row in rows[:20]]
    if names:
        url = reverse("admin:axes_accessattempt_changelist")
        message = _("Locked out after failed sign-ins: %s") % ", ".join(names)
        yield Notice(message, url, urgent=True)
