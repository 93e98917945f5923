"""The state of this installation as text, for `doctor` and the admin."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from importlib import metadata
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks.registry import registry
from django.db import connection
from django.utils.translation import gettext as _
from django.utils.translation import ngettext_lazy

from accounts.http.help.links import help_url

VERSIONS = (
    "django",
    "mcp",
    "djangorestframework-simplejwt",
    "django-oauth-toolkit",
    "django-allauth",
    "uvicorn",
)
SHOWN_SETTINGS = (
    "ENVIRONMENT",
    "ISSUER_URL",
    "RESOURCE_URL",
    "ALLOWED_HOSTS",
    "ALLOWED_ORIGINS",
    "WORKERS",
    "MCP_SESSIONS",
    "MAX_BODY_SIZE",
    "ACCESS_TOKEN_LIFETIME",
    "REFRESH_TOKEN_LIFETIME",
    "REFRESH_TOKEN_GRACE",
    "SIGNING_ALGORITHM",
    "CLIENT_REGISTRATION",
    "UNUSED_CLIENTS_AFTER",
    "AUDIT_RETENTION",
    "EXTRA_APPS",
    "TIME_ZONE",
    "PAGE_LANGUAGE",
)
SECRET_SETTINGS = (
    "SECRET_KEY",
    "SECRET_KEY_FALLBACKS",
    "KEY_ENCRYPTION_KEY",
    "KEY_ENCRYPTION_KEY_FALLBACKS",
    "REGISTRATION_TOKEN",
)

CODE = (checks.Tags.admin, checks.Tags.models, checks.Tags.urls)
"""Tags of Django's checks whose results stay the same while a process runs."""


def findings() -> list[checks.CheckMessage]:
    """Results of all checks, database checks included.

    Most severe first, then by id: Django has another order at each start.
    """
    production = settings.ENVIRONMENT == "production"
    results = [*findings_in_code()]
    for check in registry.get_checks(production):
        if not {*CODE} & {*check.tags}:
            results += check(app_configs=None, databases=["default"])
    return sorted(results, key=lambda one: (-one.level, one.id or "", str(one.msg)))


@cache
def findings_in_code() -> tuple[checks.CheckMessage, ...]:
    """Those of CODE: they take longer than all others, and the dashboard asks often."""
    return tuple(checks.run_checks(tags=CODE, databases=["default"]))


def severity_label(message: checks.CheckMessage) -> str:
    return _("error") if message.level >= checks.ERROR else _("warning")


def report_lines(results: list[checks.CheckMessage]) -> Iterator[str]:
    for message in results:
        yield f"{severity_label(message)}: {message.msg}  [{message.id}]"
        if message.hint:
            yield f"  fix: {message.hint}"
        if link := help_url(str(message.msg)):
            yield f"  see: {link}"
    if closing_line(results):
        yield closing_line(results)


def closing_line(results: list[checks.CheckMessage]) -> str:
    """The last line of the result; empty if anything is broken."""
    if any(message.level >= checks.ERROR for message in results):
        return ""
    return _("No errors found.") if results else _("No problems found.")


def versions() -> list[tuple[str, str]]:
    """(name, version) of Portico, Python, the libraries and the database."""
    rows = [("Portico", settings.VERSION), ("Python", platform.python_version())]
    rows += [(name, metadata.version(name)) for name in VERSIONS]
    return [*rows, (connection.vendor, database_version())]


def database_version() -> str:
    version: Any = connection.get_database_version()
    return ".".join(map(str, version))


UNITS = {
    86_400: ngettext_lazy("%(n)d day", "%(n)d days", "n"),
    3600: ngettext_lazy("%(n)d hour", "%(n)d hours", "n"),
    60: ngettext_lazy("%(n)d minute", "%(n)d minutes", "n"),
    1: ngettext_lazy("%(n)d second", "%(n)d seconds", "n"),
}
"""Seconds -> the name of the unit, the largest first."""


def duration_text(value: timedelta) -> str:
    """In the largest unit that has no remainder: 30 minutes, 90 minutes, 2 hours."""
    seconds = int(value.total_seconds())
    unit = next(unit for unit in UNITS if seconds % unit == 0)
    return str(UNITS[unit] % {"n": seconds // unit})


def setting_text(value: Any) -> str:
    """A list without brackets, a duration in words, a switch as on or off."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, timedelta):
        return duration_text(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or _("(empty)")
    return str(value)


def settings_shown() -> list[tuple[str, str]]:
    """(setting, value); for secrets only whether they are set."""
    shown = [(name, setting_text(getattr(settings, name))) for name in SHOWN_SETTINGS]
    return shown + [
        (name, _("(set)") if getattr(settings, name) else _("(empty)"))
        for name in SECRET_SETTINGS
    ]
