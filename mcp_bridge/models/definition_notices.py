"""Notifies of definitions that changed at their source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from accounts.models.notifications.kinds import NotificationKind, add_kind
from accounts.models.notifications.outbox import notify

MOST_NAMES = 20
"""Names in one notification; the page of the review has all."""

DEFINITIONS_CHANGED = add_kind(
    NotificationKind(
        "definition.changed",
        _("Changed definitions of tools, resources and prompts"),
        _("Definitions changed (%(object)s): %(names)s."),
        lambda data: reverse("admin:definition_review"),
    )
)


def notify_of_changes(names: Sequence[str], source: Any) -> None:
    """One notification for all changes of a source; joins the transaction."""
    if not names:
        return
    shown = ", ".join(names[:MOST_NAMES])
    if len(names) > MOST_NAMES:
        shown += f" (+{len(names) - MOST_NAMES})"
    about = {"object": str(source or "code"), "names": shown, "count": len(names)}
    notify(DEFINITIONS_CHANGED.name, about)
