"""The audit trail: read-only for everyone, superusers included."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import Q
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST

from accounts.admin.audit.export import VIEW_ARGUMENTS, export_response
from accounts.admin.audit.presets import PresetFilter
from accounts.admin.audit.saved_views import save_view, visible_views
from accounts.admin.audit.seals import VERIFIED_AT_ONCE
from accounts.admin.audit.window import (
    WindowedChangeList,
    bound,
    has_ordered_index,
    rare_keys,
    window_start,
)
from accounts.admin_site.base import ReadOnlyAdmin, badge, may
from accounts.admin_site.filters.clients import client_cell, client_ids, name_clients
from accounts.admin_site.filters.period import PeriodFilter
from accounts.admin_site.filters.typed import TypedFilter
from accounts.admin_site.large_changelists import LargeChangelistMixin, distinct
from accounts.admin_site.navigation.groups import Section
from accounts.admin_site.site import cells_of
from accounts.audit.reasons import reason_cell
from accounts.audit.record import record
from accounts.http.client_address import normalize_address
from accounts.models import AuditEvent, AuditSeal, OAuthClient
from accounts.models.audit.digests import EventUnreadable
from accounts.models.audit.events import events_about, value_text
from accounts.models.lookups import WithoutIndex
from accounts.parsing.row_ids import row_id

logger = logging.getLogger(__name__)

TARGET_KINDS = ("tool", "resource", "resource_template", "prompt")
"""First words of the objects of calls, such as "tool whoami"."""


class WhoFilter(TypedFilter):
    """Filter by actor, client, object and reason."""

    title = _("user and reason")
    inputs = (
        ("actor", "text", _("User")),
        ("client_id", "text", _("Client (name or ID)")),
        ("object", "text", _("Object")),
        ("reason", "text", _("Reason for denial")),
    )

    def condition(self, name: str, value: str) -> dict[str, Any]:
        if name == "reason":
            return {"decision": AuditEvent.Verdict.DENIED, "reason": value}
        if name == "client_id":
            ids = client_ids(value)
            return {"client_id__in": ids} if len(ids) > 1 else {"client_id": ids[0]}
        return {name: value}


class WhenFilter(PeriodFilter):
    title = _("time")
    ends = ("at__gte", "at__lt")


class ActionFilter(admin.SimpleListFilter):
    """Filter by the actions that occur in the audit."""

    title = _("action")
    parameter_name = "action"

    def lookups(self, request: Any, model_admin: Any) -> Any:
        return [(name, name) for name in distinct(AuditEvent, "action")]

    def queryset(self, request: Any, queryset: Any) -> Any:
        return queryset.filter(action=self.value()) if self.value() else queryset


OUTCOMES = {
    "ok": _("succeeded"),
    "error": _("failed"),
    "cancelled": _("cancelled"),
    "withheld": _("withheld"),
    "refused": _("refused by its server"),
    "timed_out": _("timed out"),
    "may_have_run": _("no answer, may have run"),
}
"""Outcome of an allowed call -> label. An answer is withheld if access ended."""


class OutcomeFilter(admin.SimpleListFilter):
    """Filter calls by their result."""

    title, parameter_name = _("outcome"), "outcome"

    def lookups(self, request: Any, model_admin: Any) -> Any:
        return list(OUTCOMES.items())

    def queryset(self, request: Any, queryset: Any) -> Any:
        """Use an index for errors only: the other outcomes match most events."""
        if self.value() not in OUTCOMES:
            return queryset
        if self.value() == "error":
            return queryset.filter(outcome="error")
        column = WithoutIndex("outcome")
        return queryset.alias(result=column).filter(result=self.value())


class SubjectFilter(admin.SimpleListFilter):
    """The history of one row; only links to a history set it."""

    title, parameter_name = _("changed item"), "subject"

    def lookups(self, request: Any, model_admin: Any) -> Any:
        chosen = request.GET.get("subject", "")
        return [(chosen, row_in_words(model_admin, chosen))] if chosen else []

    def queryset(self, request: Any, queryset: Any) -> Any:
        return (
            queryset.filter(events_about(self.value() or ""))
            if self.value()
            else queryset
        )


@admin.register(AuditEvent)
class AuditEventAdmin(LargeChangelistMixin, ReadOnlyAdmin[AuditEvent]):
    """Search and filter events; superusers cannot edit or delete them either."""

    place = (Section.ACTIVITY, 10)
    intro = _(
        "All decisions and changes: what happened, who did it and "
        "why. Entries cannot be changed or deleted."
    )
    list_display = (
        "moment",
        "actor",
        "action",
        "object",
        "client",
        "verdict",
        "result",
        "reason",
        "address",
    )
    list_filter = (
        PresetFilter,
        WhenFilter,
        "decision",
        OutcomeFilter,
        WhoFilter,
        ActionFilter,
        SubjectFilter,
    )
    linked_lookups = ("object__in", "token_id", "request_id")
    sortable_by = ("moment",)
    search_fields = ("actor",)
    search_help_text = _(
        "Enter a username, a tool, a client's name or ID, an address, an "
        "action, a token ID or a request ID. Addresses, and "
        "values of very many events, are searched in recent events only."
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
        "who",
        "through",
        "token",
        "from_address",
        "object",
        "decision",
        "reason_shown",
        "via",
        "result",
        "duration_ms",
        "same_request",
        "before_and_after",
        "arguments_recorded",
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

    @admin.display(description=_("reason"))
    def reason_shown(self, obj: AuditEvent) -> str:
        return reason_cell(obj.reason)

    @admin.display(description=_("outcome"))
    def result(self, obj: AuditEvent) -> str:
        """The result of an allowed call; a denied one did not run."""
        if obj.decision == obj.Verdict.DENIED:
            return "-"
        label = OUTCOMES.get(obj.outcome, obj.outcome)
        if obj.outcome == "ok" or not obj.outcome:
            return str(label or "-")
        return badge(label, "bad" if obj.outcome == "error" else "warn")

    @admin.display(description=_("client"))
    def client(self, obj: AuditEvent) -> str:
        return client_cell(obj)

    @admin.display(description=_("actor"))
    def who(self, obj: AuditEvent) -> str:
        """The actor, linked to their events."""
        return self.same(actor=obj.actor)

    @admin.display(description=_("client"))
    def through(self, obj: AuditEvent) -> str:
        """The client's name and id, linked to its events."""
        name = OAuthClient.objects.all().name_of(obj.client_id)
        label = name if name == obj.client_id else f"{name} ({obj.client_id})"
        return self.same(label, client_id=obj.client_id)

    @admin.display(description=_("request ID"))
    def same_request(self, obj: AuditEvent) -> str:
        """The request id, linked to all events of the request."""
        return self.same(request_id=obj.request_id)

    @admin.display(description=_("address"))
    def from_address(self, obj: AuditEvent) -> str:
        return self.same(obj.address, q=obj.address)

    def same(self, label: str = "", **query: str) -> str:
        """A link to the events with the same value."""
        (value,) = query.values()
        url = reverse("admin:accounts_auditevent_changelist")
        link = '<a href="{}?{}">{}</a>'
        shown = format_html(link, url, urlencode(query), label or value)
        return shown if value else "-"

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
        line = '<tr><th scope="row">{}</th><td>{}</td><td>{}</td></tr>'
        head = (gettext("Field"), gettext("Before"), gettext("After"))
        return format_html(
            '<table class="plain"><thead><tr><th scope="col">{}</th>'
            '<th scope="col">{}</th><th scope="col">{}</th></tr></thead>'
            "<tbody>{}</tbody></table>",
            *head,
            format_html_join("", line, obj.change_rows),
        )

    @admin.display(description=_("recorded arguments"))
    def arguments_recorded(self, obj: AuditEvent) -> str:
        """The arguments as a table, with the policy that recorded them."""
        recorded = obj.recorded
        if not recorded:
            return "-"
        line = '<tr><th scope="row">{}</th><td>{}</td></tr>'
        return format_html(
            '<p>{}</p><table class="plain"><tbody>{}</tbody></table>',
            recorded_in_words(recorded),
            format_html_join("", line, argument_rows(recorded.get("arguments"))),
        )

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Recorded arguments need a permission besides that of the audit."""
        fields = super().get_fields(request, obj)
        if may(request, VIEW_ARGUMENTS):
            return fields
        return [name for name in fields if name != "arguments_recorded"]

    def get_queryset(self, request: HttpRequest) -> Any:
        rows = super().get_queryset(request)
        return rows if may(request, VIEW_ARGUMENTS) else rows.defer("arguments")

    def get_list_display(self, request: Any) -> Any:
        """Link each reason to the access check, if the user may open it."""

        @admin.display(description=_("reason"))
        def reason(obj: AuditEvent) -> str:
            links = cells_of(request, obj)
            why = format_html_join(" ", '<a class="why" href="{1}">{0}</a>', links)
            return format_html("{} {}", reason_cell(obj.reason), why)

        columns = super().get_list_display(request)
        return [reason if column == "reason" else column for column in columns]

    def get_changelist(self, request: Any, **kwargs: Any) -> Any:
        return WindowedChangeList

    def prepare_rows(self, rows: list[Any]) -> None:
        name_clients(rows)

    def search_conditions(self, word: str) -> Iterator[tuple[str, str]]:
        """Also the names of tools, resources and prompts, and addresses."""
        yield from super().search_conditions(word)
        for kind in TARGET_KINDS:
            yield "object", f"{kind} {word}"
            yield "object__prefix", f"{kind} {word}"
        if normalize_address(word):
            yield "address", normalize_address(word)

    def search_keys(
        self, request: Any, queryset: Any, word: str
    ) -> Iterator[list[int]]:
        """Search frequent values and prefixes among the newest events only.

        One scan serves all frequent prefixes. Addresses have no index; a list that
        searches for one has a window.
        """
        since = window_start(bound(request.GET, "at__lt"))
        newest = queryset if since is None else queryset.filter(at__gte=since)
        frequent = Q()
        for lookup, value in self.search_conditions(word):
            matches = {lookup: value}
            if has_ordered_index(lookup):
                yield self.newest_keys(queryset.filter(**matches))
                continue
            keys = rare_keys(queryset.filter(**matches))
            if keys is not None:
                yield keys
            elif lookup == "object__prefix":
                frequent |= Q(unindexed__prefix=value)
            else:
                yield self.newest_keys(newest.filter(**matches))
        if frequent:
            scanned = newest.alias(unindexed=WithoutIndex("object"))
            yield self.newest_keys(scanned.filter(frequent))

    def history_query(self, obj: Any) -> dict[str, str]:
        """The other events of the same request."""
        return {"request_id": obj.request_id}

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
            path("follow/", view(self.follow), name="audit-follow"),
        ]
        return urls + super().get_urls()

    def changelist_view(self, request: Any, extra_context: Any = None) -> Any:
        """Add the saved views, and seal one range of events that are not sealed yet."""
        seal_ranges(1)
        context = {
            "offered": visible_views(request),
            "may_share": may_share(request),
            **following(request),
        }
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

    def follow(self, request: HttpRequest) -> HttpResponseBase:
        """The newest rows of the list with ids above `after`, as its table."""
        if not self.has_view_permission(request):
            return HttpResponse(
                gettext("You do not have permission to view the audit."), status=403
            )
        asked: Any = request
        asked.GET = given = request.GET.copy()
        asked.following = row_id(str(given.pop("after", [""])[-1])) or 0
        try:
            changelist = self.get_changelist_instance(asked)
        except IncorrectLookupParameters as error:
            return HttpResponse(f"{error}", status=400, content_type="text/plain")
        changelist.formset = None
        context = {"cl": changelist, "opts": self.opts}
        template = "admin/accounts/auditevent/rows.html"
        answer = TemplateResponse(request, template, context)
        answer["Cache-Control"] = "no-store"
        return answer

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


def following(request: HttpRequest) -> dict[str, Any]:
    """Where a list that shows the newest events gets more; nothing for other lists."""
    if {"p", "o", "all", "at__lt", "at__lt_time"} & set(request.GET):
        return {}
    newest = AuditEvent.objects.order_by("-id").values_list("id", flat=True).first()
    return {"follow_url": reverse("admin:audit-follow"), "newest": newest or 0}


def seal_ranges(most: int) -> None:
    """Seal at most this many ranges; log an unreadable row (verifying names it)."""
    try:
        AuditSeal.objects.all().seal(most=most)
    except EventUnreadable as error:
        logger.error("%s; events from there on cannot be sealed", error)


def recorded_in_words(recorded: dict[str, Any]) -> str:
    """By which policy the arguments were recorded, and whether they were cut."""
    words = {
        "names": gettext("The names of the arguments."),
        "masked": gettext("The values are masked."),
        "full": gettext("The values as they were sent."),
    }
    shown = [words.get(str(recorded.get("policy")), "")]
    if recorded.get("cut"):
        shown.append(gettext("Too long to be recorded whole, so they are cut."))
    return " ".join(shown)


def argument_rows(arguments: Any) -> list[tuple[str, str]]:
    """(name, value as JSON) of recorded arguments."""
    if isinstance(arguments, dict):
        return [(name, value_as_json(value)) for name, value in arguments.items()]
    if isinstance(arguments, list):
        return [(value_text(name), "") for name in arguments]
    return [("", value_as_json(arguments))]


def value_as_json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def may_share(request: HttpRequest) -> bool:
    return may(request, "accounts.add_savedview")


def row_in_words(page: Any, subject: str) -> str:
    """The row of `user:7` as text; the subject itself if the row is deleted."""
    name, _sep, key = subject.partition(":")
    for model in page.admin_site._registry:
        if model._meta.model_name == name:
            row = model._default_manager.filter(pk=row_id(key)).first()
            return f"{model._meta.verbose_name} {row}" if row else subject
    return subject
