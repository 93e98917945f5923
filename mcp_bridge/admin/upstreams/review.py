"""The review of definitions: what is new or changed, with the difference."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from accounts.admin_site.base import badge
from accounts.admin_site.navigation.groups import Section
from accounts.admin_site.site import SitePage, row_link, site_page
from accounts.authorization.delegation import NotAllowed
from accounts.parsing.row_ids import row_id
from mcp_bridge.access import definitions
from mcp_bridge.access.definition_review import Line, difference_lines, suspicions
from mcp_bridge.models import (
    DefinitionState,
    Primitive,
    PrimitiveQuerySet,
    UpstreamServer,
)
from mcp_bridge.upstreams.registration.problem_texts import problem_in_words

CHANGE = "mcp_bridge.change_primitive"
MAX_SHOWN = 50
"""Definitions on one page; *accept all* covers the others too."""
MAX_WORDS = 3000
"""Longer texts are compared as a whole."""


@dataclass(frozen=True)
class Entry:
    """One definition on the page."""

    row: Primitive
    lines: list[tuple[str, SafeString, SafeString]]
    """Path, and before and after with the differing words marked."""
    marks: list[str]
    objection: str
    """Why this person cannot accept it; empty if allowed."""

    @property
    def problem(self) -> str:
        return problem_in_words(self.row.problem)

    @property
    def new(self) -> bool:
        return not self.row.accepted_hash

    @property
    def key(self) -> str:
        """The row and the definition that was seen, as the form sends them."""
        return f"{self.row.pk}:{self.row.definition}"


def review_entry(row: Primitive, actor: Any) -> Entry:
    """A primitive as the page shows it to `actor`."""
    lines = difference_lines(row.accepted, row.offered)
    objection = problem_in_words(definitions.acceptance_problem(row))
    return Entry(
        row,
        [(line.path, *marked_words(line)) for line in lines],
        suspicions(row.offered),
        objection or definitions.objection_to_accepting(actor, row),
    )


def marked_words(line: Line) -> tuple[SafeString, SafeString]:
    """Both texts as HTML, with `<del>` and `<ins>` around the words that differ."""
    before, after = (re.findall(r"\s+|\S+", text) for text in (line.before, line.after))
    if not before or not after or len(before) + len(after) > MAX_WORDS:
        return mark("del", line.before), mark("ins", line.after)
    left, right = [], []
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        same = kind == "equal"
        left.append(mark("" if same else "del", "".join(before[a:b])))
        right.append(mark("" if same else "ins", "".join(after[c:d])))
    return joined(left), joined(right)


LOOKS = {"del": "removed", "ins": "added"}


def mark(tag: str, text: str) -> SafeString:
    """The text as HTML, in the tag if there is one."""
    if not tag or not text:
        return format_html("{}", text)
    return format_html(f'<{tag} class="{LOOKS[tag]}">{{}}</{tag}>', text)


def joined(parts: Iterable[SafeString]) -> SafeString:
    return format_html_join("", "{}", ((part,) for part in parts))


def mark_of(rows: Iterable[Primitive]) -> str:
    """A digest of all rows and their offered definitions."""
    text = " ".join(f"{row.pk}:{row.definition}" for row in rows)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@site_page
class DefinitionReview(SitePage):
    """GET: what waits. POST: `accept`, `accept_all` or `reject`."""

    path, name = "definitions/", "definition_review"
    title = gettext_lazy("Review definitions")
    place = (Section.TOOLS, 30)
    permissions = ("mcp_bridge.view_primitive",)
    template = "admin/definition_review.html"

    def rows(self, query: Any) -> PrimitiveQuerySet:
        """What waits; of one server with `upstream`, one row with `primitive`."""
        key, one = row_id(query.get("upstream", "")), row_id(query.get("primitive", ""))
        rows = Primitive.objects.all() if one else definitions.waiting()
        rows = rows.filter(pk=one) if one else rows
        rows = rows.filter(upstream=key) if key else rows
        return rows.select_related("upstream").order_by("upstream__name", "kind", "pk")

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.show()

    def show(self, status: int = 200, **more: Any) -> HttpResponse:
        """The page; the newest state, whatever was sent."""
        rows = list(self.rows(self.request.GET))
        server = row_id(self.request.GET.get("upstream", ""))
        shown = {
            "entries": [
                review_entry(row, self.request.user) for row in rows[:MAX_SHOWN]
            ],
            "total": len(rows),
            "mark": mark_of(rows),
            "may_change": self.request.user.has_perm(CHANGE),
            "may_accept_all": getattr(self.request.user, "is_superuser", False),
            "server": UpstreamServer.objects.filter(pk=server).first(),
            "single": bool(row_id(self.request.GET.get("primitive", ""))),
            "matrix": matrix_url(server),
        }
        return self.page({**shown, **more}, status)

    def post(self, request: HttpRequest) -> HttpResponse:
        """Decide; nothing is decided about a definition that was not seen."""
        if not request.user.has_perm(CHANGE):
            raise PermissionDenied
        if "reject" in request.POST:
            return self.reject(request)
        try:
            rows = self.accept(request)
        except NotAllowed as error:
            return self.show(403, told=str(error))
        except definitions.StaleDefinition as error:
            text = _("Nothing was accepted. %s was changed after you opened this page.")
            return self.show(409, told=text % error)
        except ValueError as error:
            return self.show(400, told=str(error))
        if not rows:
            return self.show(400, told=_("Select at least one definition."))
        text = ngettext(
            "%d definition accepted.", "%d definitions accepted.", len(rows)
        )
        servers = {row.upstream_id for row in rows}
        link = matrix_url(servers.pop() if len(servers) == 1 else None)
        choose = format_html('<a href="{}">{}</a>', link, _("Choose roles"))
        messages.success(request, format_html("{} {}", text % len(rows), choose))
        return HttpResponseRedirect(request.get_full_path())

    def accept(self, request: HttpRequest) -> list[Primitive]:
        """Accept one, the selected ones, or all. Raises as definitions.accept."""
        if "accept_all" in request.POST:
            rows = list(self.rows(request.GET))
            if mark_of(rows) != request.POST["accept_all"]:
                raise definitions.StaleDefinition(_("A definition"))
            rows = [row for row in rows if not definitions.acceptance_problem(row)]
            seen = {row.pk: row.definition for row in rows}
        else:
            one = request.POST.getlist("accept")
            seen = seen_of(one or request.POST.getlist("row"))
            rows = list(Primitive.objects.filter(pk__in=seen))
        return definitions.accept(
            rows, actor=request.user, request=request, reviewed=seen, via="review"
        )

    def reject(self, request: HttpRequest) -> HttpResponse:
        """Reject the selected definitions; a reason is required."""
        reason = request.POST.get("reason", "").strip()
        seen = seen_of(request.POST.getlist("row"))
        rows = Primitive.objects.filter(pk__in=seen)
        if not reason or "\x00" in reason:
            return self.show(400, told=_("Enter a reason for the rejection."))
        try:
            done = definitions.reject(
                rows, reason, actor=request.user, request=request, reviewed=seen
            )
        except definitions.StaleDefinition:
            text = _("Nothing was rejected. A definition changed meanwhile.")
            return self.show(409, told=text)
        if not done:
            return self.show(400, told=_("Select at least one definition."))
        text = ngettext(
            "%d definition rejected. Nobody can use it.",
            "%d definitions rejected. Nobody can use them.",
            len(done),
        )
        messages.success(request, text % len(done))
        return HttpResponseRedirect(request.get_full_path())


def seen_of(keys: Iterable[str]) -> dict[int, str]:
    """Row -> hash of the definition, of `ROW:HASH` values."""
    parts = [key.partition(":") for key in keys]
    found = {row_id(row): definition for row, _colon, definition in parts}
    return {row: definition for row, definition in found.items() if row}


def matrix_url(server: int | None) -> str:
    """The access matrix, of one server's tools."""
    query = f"?{urlencode({'upstream': server})}" if server else ""
    return f"{reverse('admin:access_matrix')}{query}"


def review_url(**query: Any) -> str:
    """The page with `upstream` or `primitive`."""
    return f"{reverse('admin:definition_review')}?{urlencode(query)}"


def state_badges(primitive: Primitive) -> SafeString:
    """Why nobody can call it and what waits for a review; empty if nothing does."""
    state = primitive.state
    parts = []
    if state != DefinitionState.ACCEPTED:
        look = "warn" if state in definitions.WAITING else "bad"
        text = badge(primitive.get_state_display(), look)
        link = review_url(primitive=primitive.pk)
        parts.append(format_html('<a href="{}">{}</a>', link, text))
    obstacle = primitive.obstacle
    if obstacle and obstacle != primitive.get_state_display():
        parts.append(badge(obstacle, "bad"))
    return format_html_join(" ", "{}", ((part,) for part in parts))


@row_link(Primitive)
def links_of_primitive(
    request: HttpRequest, primitive: Primitive
) -> list[tuple[Any, str]]:
    """A button on the page of a primitive that can be reviewed."""
    decidable = primitive.state in definitions.DECIDABLE
    if not decidable or not DefinitionReview.allowed(request):
        return []
    return [(_("Review definition"), review_url(primitive=primitive.pk))]
