"""First steps of a new installation that concern tools and clients."""

from __future__ import annotations

from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from accounts.admin_site.overview.checklist import FirstStep, checklist_step
from accounts.models import AuditEvent
from mcp_bridge.models import Primitive
from mcp_bridge.server import mcp

OWN_MODULE = "mcp_bridge.mcp_tools"


def added_primitives() -> QuerySet[Primitive]:
    """Those that somebody added: all but Portico's own."""
    own = {
        name
        for (_kind, name), place in mcp.places.items()
        if place.partition(":")[0] == OWN_MODULE
    }
    return Primitive.objects.filter(vanished_at=None).exclude(
        upstream=None, name__in=own
    )


@checklist_step(rank=30, permission="mcp_bridge.add_upstreamserver")
def add_tools(request: HttpRequest) -> FirstStep:
    return FirstStep(
        _("Add your tools"),
        _("Add the URL of an MCP server, or an app with an mcp_tools.py."),
        reverse("admin:mcp_bridge_upstreamserver_add"),
        added_primitives().exists(),
    )


@checklist_step(rank=40, permission="accounts.change_role")
def decide_who_uses_them(request: HttpRequest) -> FirstStep:
    granted = Primitive.objects.servable().filter(required_scopes__roles__isnull=False)
    return FirstStep(
        _("Decide which roles can use your tools"),
        _("Tick the cells in the access matrix."),
        reverse("admin:access_matrix"),
        granted.filter(pk__in=added_primitives().values("pk")).exists(),
    )


@checklist_step(rank=60, permission="accounts.view_auditevent")
def connect_a_client(request: HttpRequest) -> FirstStep:
    return FirstStep(
        _("Connect an MCP client and call a tool"),
        _("The page shows the setup for each client and notices the first call."),
        reverse("portal-connect"),
        AuditEvent.objects.filter(action="tool.called").exists(),
    )
