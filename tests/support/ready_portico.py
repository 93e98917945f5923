"""A process that has imported Portico, whose forks read their own settings.

What importing reads must be equal: `imported_with` names it, and
`tests/config/test_ready_portico.py` looks for what it does not name.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys

IMPORTED_WITH = (
    "ACCESS_TOKEN_LIFETIME",
    "CLIENT_METADATA_DOCUMENTS",
    "ENVIRONMENT",
    "EXTRA_APPS",
    "LOCKOUT_AFTER",
    "LOCKOUT_SECONDS",
    "MAX_STREAMS",
    "METRICS_TOKEN",
    "REFRESH_TOKEN_LIFETIME",
    "SECRET_KEY",
    "SECRET_KEY_FALLBACKS",
)
"""The variables that modules, ours or of libraries, read when they are imported."""
APPLICATION = "config.asgi:application"
MODULES = (
    "config.server.static_files",
    "config.server.timeouts",
    "config.server.tracing",
    "config.server.workers",
    "config.urls",
    "mcp_bridge.application",
    "mcp_bridge.mcp_tools",
    "mcp_bridge.metrics.prometheus",
)
"""What servers import, except `config.asgi`, which makes the application."""


def imported_with(program: list[str], env: dict[str, str]) -> tuple[str, ...] | None:
    """What must be equal in two starts of Portico that share the imports.

    None: the program does not start Portico, or shares nothing.
    """
    if program[0] != "manage.py" and APPLICATION not in program:
        return None
    # The library reads the folder of several workers when it is imported.
    if env.get("METRICS_TOKEN") and env.get("WORKERS", "1") != "1":
        return None
    values = [env.get(name, "") for name in IMPORTED_WITH]
    values.append(env.get("DATABASE_URL", "").partition(":")[0])
    if not env.get("SECRET_KEY"):
        values.append(env.get("DATA_DIR", ""))
    return tuple(values)


def load(env: dict[str, str]) -> None:
    """Import Portico with these settings, before any fork."""
    os.environ.clear()
    os.environ.update(env)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django

    django.setup()
    for name in MODULES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def is_loaded() -> bool:
    return "config.settings" in sys.modules


def read_settings() -> None:
    """In a fork: replace the settings with those of its environment."""
    from django.conf import Settings, settings
    from django.core.signals import setting_changed
    from django.db import connections

    old = {name: getattr(settings, name) for name in dir(settings) if name.isupper()}
    del sys.modules["config.settings"]
    settings._wrapped = Settings("config.settings")
    # It sets the defaults of its settings when it is imported.
    importlib.reload(importlib.import_module("axes.conf"))
    vars(connections).pop("settings", None)
    vars(connections)["_settings"] = None
    for alias in connections:
        del connections[alias]
    for name in dir(settings):
        if name.isupper() and (value := getattr(settings, name)) != old.get(name):
            setting_changed.send(Settings, setting=name, value=value, enter=False)
