"""The audit trail: read by those who may, changed by nobody."""

from __future__ import annotations

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import ReadOnly
from accounts.models import AuditEvent
from accounts.site import Section


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnly[AuditEvent]):
    """Search and filter; superusers cannot edit or delete either."""

    place = (Section.AUDIT, 10)
    intro = _("What happened, by whom and why. Nobody can change or delete a line.")
    list_display = (
        "at",
        "actor",
        "action",
        "object",
        "decision",
        "reason",
        "address",
    )
    list_filter = ("decision", "action", "reason", "at")
    search_fields = ("actor", "object", "token_id", "request_id", "client_id", "via")
    date_hierarchy = "at"
    show_full_result_count = False
    list_per_page = 50
