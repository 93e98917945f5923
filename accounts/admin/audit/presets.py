"""The kinds of events that a reader asks for most, each one click above the list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from accounts.models import AuditEvent
from accounts.models.lookups import WithoutIndex

SIGN_INS = (
    "user.signed_in",
    "user.sign_in_failed",
    "user.locked_out",
    "user.signed_out",
)
TOOL_CALLS = ("tool.called", "tool.denied")
FAILED = ("error", "refused", "timed_out", "may_have_run")


def calls(events: Any) -> Any:
    """Most events are calls: the list walks back in time instead of sorting them."""
    return events.alias(kind=WithoutIndex("action")).filter(kind__in=TOOL_CALLS)


def row_changes(events: Any) -> Any:
    """Events about a changed row. A sign-in is about its user, but changes nothing."""
    undecided = events.filter(decision=AuditEvent.Verdict.NONE, subject__gt="")
    return undecided.exclude(action__in=(*SIGN_INS, "token.issued"))


PRESETS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "calls": (_("Calls"), calls),
    "denied": (_("Denied"), lambda events: events.filter(decision="denied")),
    "failed": (_("Failed calls"), lambda events: events.filter(outcome__in=FAILED)),
    "sign-ins": (_("Sign-ins"), lambda events: events.filter(action__in=SIGN_INS)),
    "changes": (_("Changes"), row_changes),
}
"""Value of `show` -> label, and the filter."""


class PresetFilter(admin.SimpleListFilter):
    """Links above the list; other filters narrow what they show."""

    title, parameter_name = _("kind of event"), "show"
    template = "admin/accounts/auditevent/presets.html"

    def lookups(self, request: Any, model_admin: Any) -> Any:
        return [(name, label) for name, (label, _narrow) in PRESETS.items()]

    def queryset(self, request: Any, queryset: Any) -> Any:
        _label, narrow = PRESETS.get(self.value() or "", ("", None))
        return queryset if narrow is None else narrow(queryset)
