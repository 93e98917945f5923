"""The audit trail: read-only for everyone, superusers included."""

from __future__ import annotations

import logging
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST

from accounts.admin.audit.export import export_response
from accounts.admin.audit.saved_views import save_view, visible_views
from accounts.admin.audit.seals import VERIFIED_AT_ONCE
from accounts.admin.audit.window import WindowedChangeList, window_start
from accounts.admin_site.base import ReadOnlyAdmin, badge, may
from accounts.admin_site.large_changelists import (
    LargeChangelistMixin,
    PeriodFilter,
    TypedFilter,
    WithoutIndex,
    distinct,
)
from accounts.admin_site.site import Section, cells_of
from accounts.audit.record import record
from accounts.models import AuditEvent, AuditSeal
from accounts.models.audit.digests import EventUnreadable

logger = logging.getLogger(__name__)


class WhoFilter(TypedFilter):
    """Filter by actor, client, object and reason."""

    title = _("user and reason")
    inputs = (
        ("actor", "text", _("User")),
        ("client_id", "text", _("Client ID")),
        ("object", "text", _("Object")),
        ("reason", "text", _("Reason for denial")),
    )

    def condition(self, name: str, value: str) -> dict[str, Any]:
        if name == "reason":
            return {"decision": AuditEvent.Verdict.DENIED, "reason": value}
        return {name: value}


class WhenFilter(PeriodFilter):
    title = _("time")
    inputs = (("at__gte", "text", _("From")), ("at__lt", "text", _("To")))


class ActionFilter(admin.SimpleListFilter):
    """Filter by the actions that occur in the audit."""

    title = _("action")
    parameter_name = "action"

    def lookups(self, request: Any, model_admin: Any) -> Any:
        return [(name, name) for name in distinct(AuditEvent, "action")]

    def queryset(self, request: Any, queryset: Any) -> Any:
        return queryset.filter(action=self.value()) if self.value() else queryset


@admin.register(AuditEvent)
class AuditEventAdmin(LargeChangelistMixin, ReadOnlyAdmin[AuditEvent]):
    """Search and filter events; superusers cannot edit or delete them either."""

    place = (Section.AUDIT, 10)
    intro = _(
        "All decisions and changes: what happened, who did it and "
        "why. Entries cannot be changed or deleted."
    )
    list_display = (
        "moment",
        "actor",
        "action",
        "object",
        "verdict",
        "reason",
        "address",
    )
    list_filter = (WhenFilter, "decision", WhoFilter, ActionFilter)
    sortable_by = ("moment",)
    search_fields = ("actor",)
    search_help_text = _(
        "Enter a full username, action, client ID, token ID or "
        "request ID, or the start of an object's name (recent "
        "events only)."
    )
    search_lookups = (
        "actor",
        "action",
        "client_id",
        "token_id",
        "request_id",
        "object__prefix",
    )
    newest_first = ("-at", "-id")
    list_per_page = 50
    change_list_template = "admin/accounts/auditevent/change_list.html"
    fields = (
        "moment",
        "action",
        "actor",
        "client_id",
        "token",
        "address",
        "object",
        "decision",
        "reason",
        "via",
        "outcome",
        "duration_ms",
        "request_id",
        "before_and_after",
    )

    @admin.display(description=_("when"), ordering="at")
    def moment(self, obj: AuditEvent) -> str:
        """Seconds as text; the title and `datetime` attributes have microseconds."""
        when = timezone.localtime(obj.at)
        return format_html(
            '<time class="moment" datetime="{0}" title="{0}">{1}</time>',
            when.isoformat(),
            f"{when:%Y-%m-%d %H:%M:%S}",
        )

    @admin.display(description=_("decision"))
    def verdict(self, obj: AuditEvent) -> str:
        looks: dict[str, str] = {obj.Verdict.ALLOWED: "good", obj.Verdict.DENIED: "bad"}
        look = looks.get(obj.decision)
        return badge(obj.get_decision_display(), look) if look else "-"

    @admin.display(description=_("token"))
    def token(self, obj: AuditEvent) -> str:
        """The token id, linked to the list of tokens."""
        if not obj.token_id:
            return "-"
        tokens = reverse("admin:accounts_issuedtoken_changelist")
        return format_html(
            '<a href="{}?q={}">{}</a>', tokens, obj.token_id, obj.token_id
        )

    @admin.display(description=_("before and after"))
    def before_and_after(self, obj: AuditEvent) -> str:
        """The changed fields as a table."""
        if not obj.changes:
            return "-"
        rows = [
            (name, *before_and_after_text(value)) for name, value in obj.changes.items()
        ]
        line = '<tr><th scope="row">{}</th><td>{}</td><td>{}</td></tr>'
        head = (gettext("Field"), gettext("Before"), gettext("After"))
        return format_html(
            '<table class="plain"><thead><tr><th scope="col">{}</th>'
            '<th scope="col">{}</th><th scope="col">{}</th></tr></thead>'
            "<tbody>{}</tbody></table>",
            *head,
            format_html_join("", line, rows),
        )

    def get_list_display(self, request: Any) -> Any:
        """Link each reason to the access check, if the user may open it."""

        @admin.display(description=_("reason"))
        def reason(obj: AuditEvent) -> str:
            links = cells_of(request, obj)
            why = format_html_join(" ", '<a class="why" href="{1}">{0}</a>', links)
            return format_html("{} {}", obj.reason or "-", why)

        columns = super().get_list_display(request)
        return [reason if column == "reason" else column for column in columns]

    def get_changelist(self, request: Any, **kwargs: Any) -> Any:
        return WindowedChangeList

    def lookup_matches(self, lookup: str, queryset: Any, word: str) -> Any:
        """Search prefixes among the newest events only: a prefix matches millions."""
        since = window_start() if lookup == "object__prefix" else None
        if since is None:
            return super().lookup_matches(lookup, queryset, word)
        newest = queryset.filter(at__gte=since)
        return newest.alias(unindexed=WithoutIndex("object")).filter(
            unindexed__prefix=word
        )

    def get_search_results(self, request: Any, queryset: Any, term: str) -> Any:
        """Return every match for an export, and the newest matches for the list."""
        if getattr(request, "exporting", False):
            return self.search_all(queryset, term), False
        return super().get_search_results(request, queryset, term)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        urls = [
            path("export/<slug:form>/", view(self.export), name="audit-export"),
            path("views/", view(self.views), name="audit-views"),
            path("verify/", view(self.verify), name="audit-verify"),
        ]
        return urls + super().get_urls()

    def changelist_view(self, request: Any, extra_context: Any = None) -> Any:
        """Add the saved views, and seal one range of events that are not sealed yet."""
        seal_ranges(1)
        context = {"offered": visible_views(request), "may_share": may_share(request)}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def export(self, request: HttpRequest, form: str) -> HttpResponseBase:
        """Stream every event that filters and search match; records the export."""
        if not self.has_view_permission(request):
            return HttpResponse(
                gettext("You do not have permission to view the audit."), status=403
            )
        request.exporting = True  # type: ignore[attr-defined]
        try:
            rows = self.get_changelist_instance(request).get_queryset(request)
        except IncorrectLookupParameters as error:
            return HttpResponse(f"{error}", status=400, content_type="text/plain")
        return export_response(request, rows, form)

    @method_decorator(require_POST)
    def views(self, request: HttpRequest) -> HttpResponseBase:
        if not self.has_view_permission(request):
            return HttpResponse(
                gettext("You do not have permission to view the audit."), status=403
            )
        return save_view(self, request, may_share(request))

    @method_decorator(require_POST)
    def verify(self, request: HttpRequest) -> HttpResponseBase:
        """Check the newest seals and name the first problem."""
        if not self.has_view_permission(request):
            return HttpResponse(
                gettext("You do not have permission to view the audit."), status=403
            )
        seal_ranges(VERIFIED_AT_ONCE)
        results = list(AuditSeal.objects.all().verify(VERIFIED_AT_ONCE))
        problem = results[-1].problem if results else ""
        record("audit.verified", actor=request.user, request=request, object=problem)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Audit integrity check"),
            "parent": (reverse("admin:accounts_auditevent_changelist"), _("Audit")),
            "seals": len(results),
            "events": sum(seal.events for seal in results),
            "all_seals": AuditSeal.objects.count(),
            "head": AuditSeal.objects.all().head(),
            "problem": problem,
        }
        return TemplateResponse(
            request, "admin/accounts/auditevent/verify.html", context
        )


def seal_ranges(most: int) -> None:
    """Seal at most this many ranges; log an unreadable row (verifying names it)."""
    try:
        AuditSeal.objects.all().seal(most=most)
    except EventUnreadable as error:
        logger.error("%s; events from there on cannot be sealed", error)


def may_share(request: HttpRequest) -> bool:
    return may(request, "accounts.add_savedview")


def before_and_after_text(value: Any) -> tuple[str, str]:
    """Before and after as text; a single value counts as "after"."""
    if isinstance(value, list) and len(value) == 2:
        return value_text(value[0]), value_text(value[1])
    return "", value_text(value)


def value_text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None or value == "" else str(value)
