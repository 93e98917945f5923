"""The list of upstream servers and the page of one."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.exceptions import DisallowedModelAdminToField
from django.contrib.admin.options import TO_FIELD_VAR
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.debug import sensitive_post_parameters

from accounts.admin_site.base import SuperusersChangeAdmin, badge, may
from accounts.admin_site.declared_lookups import LONGEST_VALUE
from accounts.admin_site.navigation.groups import Section
from accounts.admin_site.site import row_link
from accounts.parsing.text import one_line
from mcp_bridge.access.definitions import WAITING
from mcp_bridge.admin.upstreams import figures
from mcp_bridge.admin.upstreams.add_form import Looked, UpstreamForm, look_at
from mcp_bridge.admin.upstreams.review import (
    DefinitionReview,
    matrix_url,
    review_url,
    state_badges,
)
from mcp_bridge.models import (
    DefinitionState,
    Primitive,
    PrimitiveKind,
    UpstreamServer,
)
from mcp_bridge.upstreams import discovery
from mcp_bridge.upstreams.problems import UpstreamProblem
from mcp_bridge.upstreams.registration.problem_texts import problem_in_words
from mcp_bridge.upstreams.registration.servers import save_credential, save_new

SERVER = ("name", "title", "url", "prefix", "enabled", "new_definitions")
CREDENTIAL = (
    "credential_mode",
    "header",
    "secret",
    "token_url",
    "client_id",
    "client_authentication",
    "scope",
    "audience",
)
LIMITS = ("protocol", "call_timeout", "max_concurrency", "calls_per_minute")
COUNTED = {
    "accepted_count": (DefinitionState.ACCEPTED,),
    "held_count": (DefinitionState.HELD,),
    "changed_count": (DefinitionState.CHANGED,),
}


@admin.register(UpstreamServer)
class UpstreamServerAdmin(SuperusersChangeAdmin[UpstreamServer]):
    """Only superusers add or widen; others may disable a server."""

    noun = "upstream"
    place = (Section.TOOLS, 20)
    form = UpstreamForm
    intro = gettext_lazy(
        "MCP servers elsewhere. Their tools, resources and prompts are used through "
        "Portico, by the same roles and rules. Changes apply immediately."
    )
    nothing_yet = gettext_lazy(
        "No upstream servers yet. Add one: enter its URL and check what it offers."
    )
    change_form_template = "admin/upstream_server.html"
    list_display = ("shown_name", "state", "tools", "contact", "p50", "calls")
    list_filter = ("enabled",)
    search_fields = ("name", "title", "url")
    fieldsets = (
        (None, {"fields": SERVER}),
        (gettext_lazy("Credential"), {"fields": CREDENTIAL}),
        (gettext_lazy("Limits"), {"fields": LIMITS, "classes": ("collapse",)}),
    )
    actions = ("enable", "disable", "discover")

    # Permissions

    def has_narrow_permission(self, request: Any) -> bool:
        """Whoever may change primitives may disable all of a server at once."""
        return may(request, "mcp_bridge.change_primitive")

    # List

    def get_queryset(self, request: HttpRequest) -> QuerySet[UpstreamServer]:
        counts = {
            name: Count("primitives", filter=Q(primitives__state__in=states))
            for name, states in COUNTED.items()
        }
        rows = super().get_queryset(request).annotate(**counts)
        found: QuerySet[UpstreamServer] = rows.select_related("status")
        return found.prefetch_related("credentials")

    @admin.display(description=gettext_lazy("server"), ordering="name")
    def shown_name(self, obj: UpstreamServer) -> str:
        return f"{obj.title} ({obj.name})" if obj.title else obj.name

    @admin.display(description=gettext_lazy("state"))
    def state(self, obj: UpstreamServer) -> Any:
        found = figures.state_of(obj)
        shown = badge(found.text, found.look)
        return format_html("{} <small>{}</small>", shown, found.detail[:120])

    @admin.display(description=gettext_lazy("accepted / held / changed"))
    def tools(self, obj: Any) -> Any:
        """Counts; those that wait link to the review."""
        accepted, *waiting = (getattr(obj, name) for name in COUNTED)
        text = " / ".join(str(number) for number in (accepted, *waiting))
        if not any(waiting):
            return text
        return format_html('<a href="{}">{}</a>', review_url(upstream=obj.pk), text)

    @admin.display(description=gettext_lazy("last contact"))
    def contact(self, obj: Any) -> Any:
        status = getattr(obj, "status", None)
        return getattr(status, "contacted_at", None)

    @admin.display(description=gettext_lazy("p50 (ms)"))
    def p50(self, obj: UpstreamServer) -> Any:
        return self.figures(obj).p50_ms

    @admin.display(description=gettext_lazy("calls in 24 h"))
    def calls(self, obj: UpstreamServer) -> str:
        return self.figures(obj).shown

    def figures(self, obj: Any) -> figures.Figures:
        """The figures, read once for a row."""
        if not hasattr(obj, "_figures"):
            obj._figures = figures.figures_of(obj)
        found: figures.Figures = obj._figures
        return found

    # Actions

    @admin.action(
        description=gettext_lazy("Enable the selected servers"), permissions=["change"]
    )
    def enable(self, request: HttpRequest, queryset: QuerySet[UpstreamServer]) -> None:
        self.switch(request, queryset.filter(enabled=False), True)

    @admin.action(
        description=gettext_lazy("Disable the selected servers"), permissions=["narrow"]
    )
    def disable(self, request: HttpRequest, queryset: QuerySet[UpstreamServer]) -> None:
        """Hide all that they offer, from the next message on."""
        self.switch(request, queryset.filter(enabled=True), False)

    def switch(self, request: HttpRequest, rows: Any, on: bool) -> None:
        """Enable or disable; records each change."""
        with transaction.atomic():
            found = list(rows)
            for server in found:
                server.enabled = on
                server.save(update_fields=["enabled"])
                changes = {"enabled": [not on, on]}
                self.record_change(request, "changed", server, changes)
        text = ngettext("%d server changed.", "%d servers changed.", len(found))
        self.message_user(request, text % len(found), messages.SUCCESS)

    @admin.action(description=gettext_lazy("Discover now"), permissions=["change"])
    def discover(self, request: HttpRequest, queryset: QuerySet[UpstreamServer]) -> Any:
        """Ask each server what it offers, outside any transaction."""
        for server in list(queryset):
            try:
                counts = discovery.discover(server)
            except UpstreamProblem as problem:
                text = problem_in_words(problem.text)
                self.message_user(request, text, messages.ERROR)
                continue
            self.record_change(request, "discovered", server, counts_as_changes(counts))
            self.message_user(request, found_text(server, counts), messages.SUCCESS)

    # Pages

    @method_decorator(sensitive_post_parameters("secret", "kept"))
    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Look first, then save what was seen; nothing is saved by a look.

        It is not Django's page, which would contact the server in a transaction.
        """
        if not self.has_add_permission(request):
            raise PermissionDenied
        asked = request.GET.get(TO_FIELD_VAR)
        if asked and not self.to_field_allowed(request, asked):
            raise DisallowedModelAdminToField
        bound = request.method == "POST"
        form_class: Any = self.get_form(request)
        form = form_class(request.POST if bound else None, actor=request.user)
        looked = None
        if bound and form.is_valid():
            looked = look_at(form)
            if "_save" in request.POST and looked.may_save(request.POST):
                return self.save_looked(request, form, looked)
        return self.add_page(request, form, looked)

    def add_page(
        self, request: HttpRequest, form: Any, looked: Looked | None
    ) -> HttpResponse:
        """The form, and below it what the server offers."""
        fieldsets: Any = self.get_fieldsets(request)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Add upstream server"),
            "opts": self.opts,
            "adminform": admin.helpers.AdminForm(form, fieldsets, {}, (), self),
            "form": form,
            "errors": form.errors,
            "looked": looked,
            "media": self.media + form.media,
            "parent": (
                reverse("admin:mcp_bridge_upstreamserver_changelist"),
                capfirst(self.opts.verbose_name_plural),
            ),
        }
        status = 400 if form.errors or (looked and looked.problem) else 200
        return TemplateResponse(
            request, "admin/upstream_add.html", context, status=status
        )

    def save_looked(
        self, request: HttpRequest, form: Any, looked: Looked
    ) -> HttpResponse:
        """Save the server with what it offered; go on to the review."""
        server = form.instance
        self.message_user(request, save_looked(request, form, looked), messages.SUCCESS)
        if looked.found is None:
            return HttpResponseRedirect(self.row_url(server))
        waits = server.primitives.filter(state__in=WAITING).exists()
        target = review_url(upstream=server.pk) if waits else matrix_url(server.pk)
        return HttpResponseRedirect(target)

    @method_decorator(sensitive_post_parameters("secret"))
    def change_view(
        self,
        request: Any,
        object_id: str,
        form_url: str = "",
        extra_context: Any = None,
    ) -> Any:
        server = self.get_object(request, object_id)
        shown = {} if server is None else page_context(server)
        context = {**shown, **(extra_context or {})}
        return super().change_view(request, object_id, form_url, context)

    def save_model(
        self, request: HttpRequest, obj: UpstreamServer, form: Any, change: bool
    ) -> None:
        """Save the server and, if its fields changed, the credential."""
        super().save_model(request, obj, form, change)
        credential = form.credential()
        if credential is not None and form.credential_changed():
            save_credential(obj, credential, form.secret_value())


def save_looked(request: HttpRequest, form: Any, looked: Looked) -> str:
    """Save the server of a valid form with what it offered; says what was found."""
    server = form.instance
    with transaction.atomic():
        save_new(
            server,
            form.credential(),
            form.secret_value(),
            actor=request.user,
            request=request,
        )
        if looked.found is None:
            text: str = _("%s is saved. It has not been contacted yet.") % server
            return text
        return found_text(server, discovery.store(server, looked.found))


def page_context(server: UpstreamServer) -> dict[str, Any]:
    """What the page of a server shows besides its form."""
    numbers = figures.figures_of(server)
    rows = server.primitives.order_by("kind", "name").defer("accepted", "offered")
    shown = rows.select_related("upstream")[:200]
    return {
        "state": figures.state_of(server),
        "status": getattr(server, "status", None),
        "numbers": numbers,
        "primitives": [
            (row, state_badges(row), problem_in_words(row.problem)) for row in shown
        ],
        "list_path": reverse("admin:mcp_bridge_upstreamserver_changelist"),
    }


def counts_as_changes(counts: dict[str, int]) -> dict[str, Any]:
    """Counts as changes of an audit event."""
    return {name: [None, number] for name, number in counts.items() if number}


def found_text(server: UpstreamServer, counts: dict[str, int]) -> str:
    """What a discovery changed, in one sentence."""
    changed = counts["changed"] + counts["returned"]
    words = {
        "server": str(server),
        "new": counts["added"],
        "changed": changed,
        "gone": counts["vanished"],
    }
    text = _("%(server)s: %(new)d new, %(changed)d changed, %(gone)d gone.")
    return one_line(text % words)


@row_link(UpstreamServer)
def of_server(request: HttpRequest, server: UpstreamServer) -> list[tuple[Any, str]]:
    """Buttons to the server's definitions, roles, calls and refusals."""
    links: list[tuple[Any, str]] = []
    if DefinitionReview.allowed(request):
        links += [
            (_("Review definitions"), review_url(upstream=server.pk)),
            (_("Access matrix"), matrix_url(server.pk)),
        ]
    return links + links_to_calls(request, calls_query(server))


def calls_query(server: UpstreamServer) -> dict[str, str]:
    """The filter of the audit for calls of a server's tools; empty if there is none.

    Without a prefix, the audit is asked for each name, as far as a URL can be that
    long; the pages of the tools have links, too.
    """
    if server.prefix:
        return {"q": f"tool {server.prefix}__"}
    tools = server.primitives.filter(kind=PrimitiveKind.TOOL)
    names = ",".join(f"tool {name}" for name in tools.values_list("name", flat=True))
    return {"object__in": names} if 0 < len(names) <= LONGEST_VALUE else {}


def links_to_calls(
    request: HttpRequest, query: dict[str, str]
) -> list[tuple[Any, str]]:
    """Buttons to calls and denied calls in the audit."""
    if not query or not may(request, "accounts.view_auditevent"):
        return []
    events = reverse("admin:accounts_auditevent_changelist")
    denied = {**query, "decision__exact": "denied"}
    return [
        (_("Calls"), f"{events}?{urlencode(query)}"),
        (_("Denied calls"), f"{events}?{urlencode(denied)}"),
    ]


@row_link(Primitive)
def calls_of(request: HttpRequest, primitive: Primitive) -> list[tuple[Any, str]]:
    name = f"{primitive.kind} {primitive.name}"[:255]
    return links_to_calls(request, {"object": name})
