"""Notices about tools, resources and prompts."""

from __future__ import annotations

from collections.abc import Iterator

from django.urls import reverse
from django.utils.translation import gettext as _

from accounts.admin_site.notices import Notice, notice_finder
from mcp_bridge.checks import changed_names, unreachable_names
from mcp_bridge.models import DefinitionState, Primitive
from mcp_bridge.upstreams.registration.checks import enabled_servers, server_problem


@notice_finder("mcp_bridge.view_primitive", instead_of="portico.W101")
def changed_definitions() -> Iterator[Notice]:
    """Primitives whose definition changed since it was accepted."""
    names = changed_names()
    if names:
        message = _("Definition changed, needs review: %s") % first_few(names)
        yield Notice(message, reverse("admin:definition_review"), urgent=True)


@notice_finder("mcp_bridge.view_primitive", instead_of="portico.W102")
def unreachable() -> Iterator[Notice]:
    """Primitives that no role grants."""
    names = unreachable_names()
    if names:
        message = _("No role gives access to: %s") % first_few(names)
        yield Notice(message, reverse("admin:access_matrix"))


@notice_finder("mcp_bridge.view_primitive", instead_of="portico.W112")
def held_definitions() -> Iterator[Notice]:
    """Definitions of upstream servers that nobody has accepted yet."""
    held = Primitive.objects.filter(state=DefinitionState.HELD)
    names = list(held.values_list("name", flat=True)[:MOST])
    if names:
        message = _("New definitions are held: %s") % first_few(names)
        yield Notice(message, reverse("admin:definition_review"))


@notice_finder("mcp_bridge.view_upstreamserver", instead_of="portico.W110")
def upstream_problems() -> Iterator[Notice]:
    """Enabled upstream servers that do not work, each with its page."""
    for server in enabled_servers():
        text = server_problem(server)
        if text:
            url = reverse("admin:mcp_bridge_upstreamserver_change", args=(server.pk,))
            yield Notice(text, url, urgent=True)


MOST = 6
"""Names that a notice needs."""


def first_few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
