"""System checks of the catalogue."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.core import checks
from django.utils.translation import gettext as _

from accounts.checks import database_check
from accounts.crypto import private_files
from accounts.management.errors import BrokenApp
from mcp_bridge.cache.triggers.install import state
from mcp_bridge.models import ChangeCounter, Primitive
from mcp_bridge.server.discovery import silent_apps


def changed_names() -> list[str]:
    """Names of primitives whose changed definition nobody has accepted."""
    changed = Primitive.objects.exclude(changed_at=None)
    return list(changed.values_list("name", flat=True))


def unreachable_names() -> list[str]:
    """Names of primitives that are served and that no role covers."""
    covered = Primitive.objects.filter(required_scopes__roles__isnull=False)
    alone = Primitive.objects.all().servable().exclude(pk__in=covered)
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


def holders_of_replaced_files(paths: list[Path], processes: Path) -> list[str]:
    """Ids of this account's processes that have one of these open, deleted (Linux)."""
    gone = {f"{path} (deleted)" for path in paths}
    found = set()
    for link in processes.glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if os.readlink(link) in gone:
                found.add(link.parent.parent.name)
    return sorted(found, key=int)


@database_check
def no_process_serves_a_replaced_file() -> Iterable[checks.CheckMessage]:
    """Every process uses the SQLite file that has this name now."""
    paths = [path.resolve() for path in private_files.database_files()]
    holders = holders_of_replaced_files(paths, Path("/proc")) if paths else []
    if holders:
        yield checks.Error(
            _("The database was replaced, but processes use the old file: %s.")
            % ", ".join(holders),
            hint=_("Restart the server. Until then it answers 503."),
            id="portico.E105",
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


@checks.register
def apps_offer_something(**kwargs: Any) -> list[checks.CheckMessage]:
    """Every app in EXTRA_APPS can be imported and offers a primitive."""
    try:
        silent = silent_apps()
    except BrokenApp as error:
        *what, fix = str(error).splitlines()
        hint = fix.removeprefix("Fix: ")
        return [checks.Error(" ".join(what), hint=hint, id="portico.E106")]
    return [silence(app, similar) for app, similar in silent]


def silence(app: str, similar: str) -> checks.CheckMessage:
    text = _("%s is in EXTRA_APPS and offers no tool, resource or prompt.") % app
    hint = _("Add mcp_tools.py to it. Ignore this if it is not meant to offer any.")
    if similar == "mcp_tools.py":
        hint = _("Register something in its mcp_tools.py, such as with @mcp.tool().")
    elif similar:
        hint = _("Rename %s to mcp_tools.py.") % similar
    return checks.Warning(text, hint=hint, id="portico.W106")
