"""The list of audit seals."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from accounts.admin_site.base import ReadOnlyAdmin
from accounts.admin_site.large_changelists import (
    COUNT_LIMIT,
)
from accounts.admin_site.navigation.groups import Section
from accounts.models import AuditSeal

VERIFIED_AT_ONCE = 100
"""Newest seals that the button verifies; `verify_audit` verifies all."""


@admin.register(AuditSeal)
class AuditSealAdmin(ReadOnlyAdmin[AuditSeal]):
    place = (Section.ACTIVITY, 20)
    intro = _(
        "Each seal covers a range of events and the previous seal. "
        "Store the newest digest outside Portico and compare it "
        "with manage.py verify_audit --head."
    )
    list_display = ("number", "events", "first_at", "last_at", "short", "purged_at")
    fields = (
        "number",
        "events",
        "after_id",
        "last_id",
        "first_at",
        "last_at",
        "previous",
        "content",
        "digest",
        "sealed_at",
        "purged_at",
    )
    show_full_result_count = False
    change_list_template = "admin/accounts/auditseal/change_list.html"

    def changelist_view(self, request: Any, extra_context: Any = None) -> Any:
        """Show how many events are not sealed yet."""
        count, since = AuditSeal.objects.all().unsealed(COUNT_LIMIT)
        context = {"unsealed": count, "unsealed_since": since, "counted": COUNT_LIMIT}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    @admin.display(description=_("digest"))
    def short(self, obj: AuditSeal) -> str:
        return obj.digest[:16]
