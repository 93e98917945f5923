"""Notices about tools, resources and prompts."""

from __future__ import annotations

from collections.abc import Iterator

from django.urls import reverse
from django.utils.translation import gettext as _

from accounts.admin_site.notices import Notice, notice_finder
from mcp_bridge.checks import changed_names, unreachable_names


@notice_finder("mcp_bridge.view_primitive", instead_of="portico.W101")
def changed_definitions() -> Iterator[Notice]:
    """Primitives whose definition changed since it was accepted."""
    names = changed_names()
    if names:
        message = _("Definition changed, needs review: %s") % first_few(names)
        listing = reverse("admin:mcp_bridge_primitive_changelist")
        yield Notice(message, f"{listing}?changed_at__isnull=False", urgent=True)


@notice_finder("mcp_bridge.view_primitive", instead_of="portico.W102")
def unreachable() -> Iterator[Notice]:
    """Primitives that no role grants."""
    names = unreachable_names()
    if names:
        message = _("No role gives access to: %s") % first_few(names)
        yield Notice(message, reverse("admin:access_matrix"))


def first_few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
