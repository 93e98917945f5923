"""Django settings that the two Django peers share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

FOLDER = Path(os.environ["BENCH_FOLDER"])


def database(name: str) -> dict[str, Any]:
    """PostgreSQL with a pool if DATABASE_URL is set, else SQLite in WAL mode."""
    url = urlsplit(os.getenv("DATABASE_URL", ""))
    if not url.scheme:
        pragmas = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": FOLDER / f"{name}.sqlite3",
            "OPTIONS": {"init_command": pragmas},
            "CONN_MAX_AGE": None,
        }
    host = parse_qs(url.query).get("host", [url.hostname])[0]
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.path.lstrip("/"),
        "USER": url.username,
        "PASSWORD": url.password or "",
        "HOST": host,
        "PORT": url.port or "",
        "OPTIONS": {"pool": True},
    }


def settings(name: str, *apps: str) -> dict[str, Any]:
    """Keyword arguments for `django.conf.settings.configure`."""
    return {
        "SECRET_KEY": "only for the benchmark, on the loopback interface 0123456789",
        "ALLOWED_HOSTS": ["*"],
        "DATABASES": {"default": database(name)},
        "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
        "INSTALLED_APPS": [
            "django.contrib.auth",
            "django.contrib.contenttypes",
            *apps,
        ],
        "USE_TZ": True,
    }
