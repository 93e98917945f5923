"""System checks of the catalogue."""

from __future__ import annotations

from collections.abc import Iterable

from django.core import checks
from django.utils.translation import gettext as _

from accounts.checks import database_check
from mcp_bridge.cache.triggers.install import state
from mcp_bridge.models import ChangeCounter, Primitive


def changed_names() -> list[str]:
    """What changed in code and nobody has looked at."""
    changed = Primitive.objects.exclude(changed_at=None)
    return list(changed.values_list("name", flat=True))


def unreachable_names() -> list[str]:
    """What is on offer and within nobody's role."""
    covered = Primitive.objects.filter(required_scopes__roles__isnull=False)
    alone = Primitive.objects.filter(enabled=True).exclude(pk__in=covered)
    return list(alone.values_list("name", flat=True))


@database_check
def definitions_are_accepted() -> Iterable[checks.CheckMessage]:
    """Nothing changed in code unseen."""
    changed = changed_names()
    if changed:
        yield checks.Warning(
            _("Definitions changed and nobody has accepted them: %s.")
            % ", ".join(changed),
            hint=_("Look at them in the admin under Primitives."),
            id="portico.W101",
        )


@database_check
def everything_is_reachable() -> Iterable[checks.CheckMessage]:
    """Each primitive in code is within somebody's role."""
    names = unreachable_names()
    if names:
        yield checks.Warning(
            _("No role gives access to: %s.") % ", ".join(names),
            hint=_("Add one of their scopes to a role in the admin."),
            id="portico.W102",
        )


@database_check
def changes_are_numbered() -> Iterable[checks.CheckMessage]:
    """Every change trigger is there and the numbers count."""
    found = state()
    lost = found.missing
    if lost or not ChangeCounter.objects.exclude(epoch="").exists():
        told = _("a migrate did not finish")
        if lost:
            told = _("missing: %s") % ", ".join(lost)
        yield checks.Error(
            _("Changes are not numbered (%s), so every message reads every row.")
            % told,
            hint=_("Run: %s") % "manage.py migrate",
            id="portico.E103",
        )
    if found.outside:
        yield checks.Error(
            _("Changes are not numbered (%s), so every message reads every row.")
            % ", ".join(map(str, found.outside)),
            hint=_(
                "Drop the subscription or the inheritance: Portico's tables do not "
                "support them."
            ),
            id="portico.E104",
        )
