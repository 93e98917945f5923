"""System checks of the catalogue."""

from __future__ import annotations

from collections.abc import Iterable

from django.core import checks
from django.utils.translation import gettext as _

from accounts.checks import database_check
from mcp_bridge.cache.triggers.install import state
from mcp_bridge.models import ChangeCounter, Primitive


def changed_names() -> list[str]:
    """Names of primitives whose changed definition nobody has accepted."""
    changed = Primitive.objects.exclude(changed_at=None)
    return list(changed.values_list("name", flat=True))


def unreachable_names() -> list[str]:
    """Names of enabled primitives that no role covers."""
    covered = Primitive.objects.filter(required_scopes__roles__isnull=False)
    alone = Primitive.objects.filter(enabled=True).exclude(pk__in=covered)
    return list(alone.values_list("name", flat=True))


@database_check
def definitions_are_accepted() -> Iterable[checks.CheckMessage]:
    changed = changed_names()
    if changed:
        yield checks.Warning(
            _("Changed definitions need review: %s.") % ", ".join(changed),
            hint=_("Review them in the admin under Tools, resources and prompts."),
            id="portico.W101",
        )


@database_check
def everything_is_reachable() -> Iterable[checks.CheckMessage]:
    names = unreachable_names()
    if names:
        yield checks.Warning(
            _("No role gives access to: %s.") % ", ".join(names),
            hint=_("Add one of their scopes to a role in the admin."),
            id="portico.W102",
        )


@database_check
def changes_are_numbered() -> Iterable[checks.CheckMessage]:
    """Every change trigger exists and an epoch has started."""
    triggers = state()
    missing = triggers.missing
    if missing or not ChangeCounter.objects.exclude(epoch="").exists():
        reason = _("a migration did not finish")
        if missing:
            reason = _("missing: %s") % ", ".join(missing)
        yield checks.Error(
            _(
                "Change tracking is incomplete (%s), so every message "
                "reads all rows from the database."
            )
            % reason,
            hint=_("Run: %s") % "manage.py migrate",
            id="portico.E103",
        )
    if triggers.outside:
        yield checks.Error(
            _(
                "Change tracking is incomplete (%s), so every message "
                "reads all rows from the database."
            )
            % ", ".join(map(str, triggers.outside)),
            hint=_(
                "Remove the subscription or the inheritance. Portico's "
                "tables do not support them."
            ),
            id="portico.E104",
        )
