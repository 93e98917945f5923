"""The log of deliveries: what was sent where, and what came of it."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from accounts.admin.notifications.channels import shown_state
from accounts.admin_site.base import ReadOnlyAdmin
from accounts.admin_site.navigation.groups import Section
from accounts.models import Delivery
from accounts.models.notifications.kinds import kind_named
from accounts.models.notifications.outbox import wake_senders
from accounts.notifications.contents import sentence
from accounts.notifications.sending import send_again


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin[Delivery]):
    place = (Section.SETTINGS, 13)
    intro = _(
        "Notifications that were sent or wait for their next attempt. "
        "manage.py purge deletes them after 90 days."
    )
    nothing_yet = _("Nothing was sent yet. Notification channels say what is sent.")
    list_display = (
        "created_at",
        "channel",
        "event",
        "status",
        "attempts",
        "next_attempt_at",
        "delivered_at",
    )
    list_filter = ("state", "channel")
    list_select_related = ("channel",)
    show_full_result_count = False
    fields = (
        "channel",
        "event",
        "text",
        "status",
        "attempts",
        "attempted_at",
        "next_attempt_at",
        "created_at",
        "delivered_at",
        "message_id",
    )
    actions = ("send_again",)

    @admin.display(description=_("event"))
    def event(self, obj: Delivery) -> str:
        return str(kind_named(obj.kind).label)

    @admin.display(description=_("text"))
    def text(self, obj: Delivery) -> str:
        return sentence(obj)

    @admin.display(description=_("status"))
    def status(self, obj: Delivery) -> Any:
        return shown_state(obj)

    def has_resend_permission(self, request: HttpRequest) -> bool:
        """Sending is up to those who may change channels."""
        return bool(request.user.is_superuser)

    @admin.action(description=_("Send again"), permissions=["resend"])
    def send_again(self, request: HttpRequest, queryset: Any) -> None:
        """Attempt the selected deliveries now, also those that have arrived."""
        rows = list(queryset.select_related("channel"))
        for row in rows:
            send_again(row, request.user, request)
        wake_senders()
        text = ngettext(
            "%d delivery is sent again.", "%d deliveries are sent again.", len(rows)
        )
        self.message_user(request, text % len(rows), messages.SUCCESS)
