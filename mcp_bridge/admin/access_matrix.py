"""The access matrix: tick cells, review the changes, save."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from accounts.admin_site.navigation.groups import Section
from accounts.admin_site.site import SitePage, site_page
from accounts.authorization.delegation import NotAllowed
from accounts.models import Role
from mcp_bridge.access.matrix.cells import Cell, CellState, Matrix, MatrixChange
from mcp_bridge.access.matrix.replacement import count_users, outcomes
from mcp_bridge.access.matrix.saving import (
    CHANGE_PRIMITIVE,
    StaleMatrix,
    save_matrix,
)
from mcp_bridge.admin.upstreams.review import state_badges
from mcp_bridge.models import (
    DefinitionState,
    Primitive,
    PrimitiveKind,
    UpstreamServer,
)

MAX_PAGE_ROWS = 100
MAX_CELLS = 4000
"""Cells of one page, so that its form stays within DATA_UPLOAD_MAX_NUMBER_FIELDS."""
BULK = [
    ("", gettext_lazy("no change")),
    ("on", gettext_lazy("all")),
    ("off", gettext_lazy("none")),
]


class Filters(forms.Form):
    q = forms.CharField(required=False, max_length=200, label=gettext_lazy("Name"))
    kind = forms.ChoiceField(
        required=False,
        label=gettext_lazy("Kind"),
        choices=[("", gettext_lazy("all")), *PrimitiveKind.choices],
    )
    sensitive = forms.ChoiceField(
        required=False,
        label=gettext_lazy("Sensitive"),
        choices=[
            ("", gettext_lazy("all")),
            ("1", gettext_lazy("yes")),
            ("0", gettext_lazy("no")),
        ],
    )
    state = forms.ChoiceField(
        required=False,
        label=gettext_lazy("State"),
        choices=[("", gettext_lazy("all")), *DefinitionState.choices],
    )
    upstream = forms.ModelChoiceField(
        UpstreamServer.objects.all(),
        required=False,
        label=gettext_lazy("Upstream server"),
        empty_label=gettext_lazy("all"),
    )
    role = forms.ModelMultipleChoiceField(
        Role.objects.all(),
        required=False,
        label=gettext_lazy("Roles"),
        widget=forms.SelectMultiple(attrs={"size": 3}),
    )


@dataclass
class MatrixView:
    """A filtered part of the matrix."""

    filters: Filters
    primitives: list[Primitive]
    roles: list[Role]
    page: int
    query: dict[str, Any] = field(default_factory=dict)

    @property
    def per_page(self) -> int:
        """Fewer rows where there are many roles."""
        return max(1, min(MAX_PAGE_ROWS, MAX_CELLS // max(1, len(self.roles))))

    @property
    def shown(self) -> list[Primitive]:
        start = (self.page - 1) * self.per_page
        return self.primitives[start : start + self.per_page]

    @property
    def pages(self) -> list[tuple[int, str]]:
        """(number, URL) of all pages; empty for a single page."""
        last = -(-len(self.primitives) // self.per_page)
        return [(n, self.url(n)) for n in range(1, last + 1)] if last > 1 else []

    def url(self, page: int) -> str:
        query = urlencode({**self.query, "p": page}, doseq=True)
        return f"{reverse('admin:access_matrix')}?{query}"


def parse_view(query: Any) -> MatrixView:
    """Parse the query string; an invalid one selects everything."""
    filters = Filters(query)
    data = filters.cleaned_data if filters.is_valid() else {}
    rows: QuerySet[Primitive] = Primitive.objects.order_by("kind", "name")
    rows = rows.select_related("upstream").defer("accepted", "offered")
    if data.get("q"):
        rows = rows.filter(name__icontains=data["q"])
    if data.get("kind"):
        rows = rows.filter(kind=data["kind"])
    if data.get("sensitive"):
        rows = rows.filter(sensitive=data["sensitive"] == "1")
    if data.get("state"):
        rows = rows.filter(state=data["state"])
    if data.get("upstream"):
        rows = rows.filter(upstream=data["upstream"])
    roles = list(data.get("role") or Role.objects.all())
    page = query.get("p", "")
    names = ("q", "kind", "sensitive", "state", "upstream", "role")
    parameters = {n: query.getlist(n) for n in names if query.get(n)}
    number = int(page) if page.isdecimal() and 0 < len(page) < 6 else 1
    return MatrixView(filters, list(rows), roles, max(1, number), parameters)


@site_page
class AccessMatrix(SitePage):
    """GET: the matrix. POST with ticks: the review. POST `save`: save."""

    path, name = "access/matrix/", "access_matrix"
    title = gettext_lazy("Access matrix")
    place = (Section.ACCESS, 40)
    permissions = ("accounts.view_role", "mcp_bridge.view_primitive")
    template = "admin/access_matrix.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.show(parse_view(request.GET))

    def show(
        self, view: MatrixView, ticked: set[str] | None = None, status: int = 200
    ) -> HttpResponse:
        """The page; `ticked` are unsaved ticks, None for the stored state."""
        matrix = Matrix(view.primitives, view.roles)
        user = self.request.user
        may_change = user.has_perm("accounts.change_role")
        allowed = may_change, may_change and user.has_perm(CHANGE_PRIMITIVE)
        rows = [
            (row, state_badges(row), cells(matrix, row, view.roles, ticked, *allowed))
            for row in view.shown
        ]
        shown = {
            "view": view,
            "rows": rows,
            "version": matrix.version,
            "bulk": BULK,
            "may_change": may_change,
            "total": len(view.primitives),
        }
        return self.page(shown, status)

    def post(self, request: HttpRequest) -> HttpResponse:
        """Review or save; needs permission to change roles."""
        if not request.user.has_perm("accounts.change_role"):
            raise PermissionDenied
        view = parse_view(request.GET)
        if "changes" in request.POST:
            return self.save(request, view)
        matrix = Matrix(view.primitives, view.roles)
        ticked = set(request.POST.getlist("on"))
        if matrix.version != request.POST.get("version"):
            return self.stale(view, ticked)
        ticks = requested_ticks(matrix, view, ticked, request.POST)
        changes = matrix.changes(ticks, view.primitives)
        if not changes:
            messages.info(request, _("Nothing was changed."))
            return HttpResponseRedirect(view.url(view.page))
        return self.review(view, matrix, changes)

    def review(
        self, view: MatrixView, matrix: Matrix, changes: list[MatrixChange]
    ) -> HttpResponse:
        found = outcomes(matrix, changes)
        count_users(found)
        by_role: dict[Role, list[MatrixChange]] = {}
        for change in changes:
            by_role.setdefault(change.role, []).append(change)
        self.template = "admin/access_matrix_review.html"
        back = view.url(view.page)
        self.parent = (back, self.title)
        return self.page(
            {
                "title": _("Review changes"),
                "by_role": list(by_role.items()),
                "outcomes": found,
                "count": len(changes),
                "codes": " ".join(change.code for change in changes),
                "version": matrix.version,
                "back": back,
            }
        )

    def save(self, request: HttpRequest, view: MatrixView) -> HttpResponse:
        matrix = Matrix(view.primitives, view.roles)
        codes = request.POST["changes"].split()
        try:
            changes = save_matrix(
                matrix,
                request.POST.get("version", ""),
                codes,
                actor=request.user,
                request=request,
            )
        except StaleMatrix:
            return self.stale(view, None)
        except NotAllowed as error:
            messages.error(request, _("Nothing was saved. %s") % error)
            return self.show(view, status=403)
        message = ngettext("%d change saved.", "%d changes saved.", len(changes)) % len(
            changes
        )
        follows = _("Changes apply immediately.")
        messages.success(request, f"{message} {follows}")
        return HttpResponseRedirect(view.url(view.page))

    def stale(self, view: MatrixView, ticked: set[str] | None) -> HttpResponse:
        """Show the current state with the unsaved ticks; nothing is saved."""
        message = _(
            "Nothing was saved. Someone changed roles or tools after "
            "you opened this page. Review the current state below and "
            "save again."
        )
        messages.error(self.request, message)
        return self.show(view, ticked, status=409)


def requested_ticks(
    matrix: Matrix, view: MatrixView, ticked: set[str], post: Any
) -> set[str]:
    """The ticks of this page; bulk choices of rows and columns override them.

    A column's bulk choice covers every primitive that matches the filter, on all pages.
    """
    on_page = {primitive.pk for primitive in view.shown}
    ticks = set()
    for primitive in view.primitives:
        row = post.get(f"row-{primitive.pk}", "")
        for cell in matrix.row(primitive):
            tick = cell.key in ticked if primitive.pk in on_page else cell.ticked
            bulk = row or post.get(f"column-{cell.role}", "")
            if bulk == "on" or (tick and bulk != "off"):
                ticks.add(cell.key)
    return ticks


def cells(
    matrix: Matrix,
    primitive: Primitive,
    roles: list[Role],
    ticked: set[str] | None,
    may_change: bool,
    may_replace: bool,
) -> Iterator[SafeString]:
    """A row of cells as HTML; a template is too slow for thousands of cells.

    `may_replace`: whether the reader may take access by shared scopes away.
    """
    for role, cell in zip(roles, matrix.row(primitive), strict=True):
        on = cell.ticked if ticked is None or not cell.tickable else cell.key in ticked
        may = may_replace if cell.through else may_change
        yield cell_html(cell, f"{primitive.name}, {role.name}", on, may)


def cell_html(cell: Cell, name: str, on: bool, may_change: bool) -> SafeString:
    """One cell: a checkbox, or the reason why there is none."""
    shared = ", ".join(cell.through)
    if cell.state is CellState.CLOSED:
        return format_html(
            '<td class="closed">{}</td>', _("no: it does not require its own scope")
        )
    text = _("through %s") if cell.state is CellState.SHARED else _("also through %s")
    text %= shared
    also = format_html("<small>{}</small>", text) if shared else ""
    return format_html(
        '<td><label><input type="checkbox" name="on" value="{}" aria-label="{}"{}{}>'
        '<b class="y">{}</b><b class="n">{}</b></label>{}</td>',
        cell.key,
        name,
        mark_safe(" checked") if on else "",
        "" if may_change else mark_safe(" disabled"),
        _("allowed"),
        _("no"),
        also,
    )
