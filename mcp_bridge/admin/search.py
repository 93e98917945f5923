"""Tools, resources, prompts and upstream servers in the search of the admin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from accounts.admin_site.search.bounded_lookups import containing
from accounts.admin_site.search.kinds import RowKind, detail_line, search_kind
from accounts.admin_site.site import row_cell
from accounts.models import Role, User
from mcp_bridge.admin.access_check import access_check_url, of_role
from mcp_bridge.models import Primitive, UpstreamServer


@search_kind
class Primitives(RowKind):
    """What the code and upstream servers offer, by name or title."""

    model, label, rank = Primitive, _("Tools, resources and prompts"), 20

    def rows(self, word: str) -> Iterable[Primitive]:
        rows = Primitive.objects.select_related("upstream")
        light = rows.defer("accepted", "accepted_hash", "offered", "description")
        found: Iterable[Primitive] = containing(light, word, "name", "title")
        return found

    def title(self, row: Primitive) -> str:
        return row.name

    def detail(self, row: Primitive) -> str:
        kind, source = row.get_kind_display(), str(row.upstream or "")
        return detail_line(kind, row.title, source, row.obstacle)


@search_kind
class UpstreamServers(RowKind):
    model, label, rank = UpstreamServer, _("Upstream servers"), 40

    def rows(self, word: str) -> Iterable[UpstreamServer]:
        rows = UpstreamServer.objects.all()
        found: Iterable[UpstreamServer] = containing(rows, word, "name", "title", "url")
        return found

    def detail(self, row: UpstreamServer) -> str:
        return row.url


@row_cell(Primitive)
def check_of_primitive(request: HttpRequest, row: Primitive) -> tuple[Any, str] | None:
    """Who may use it."""
    return next(iter(access_check_url(request, primitive=row.pk)), None)


@row_cell(User)
def check_of_user(request: HttpRequest, row: User) -> tuple[Any, str] | None:
    """What the person may use."""
    return next(iter(access_check_url(request, user=row.username)), None)


@row_cell(Role)
def matrix_of_role(request: HttpRequest, row: Role) -> tuple[Any, str] | None:
    return next(iter(of_role(request, row)), None)
