"""`manage.py migrate`: Django's, one at a time, and without asking what it mends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.commands import migrate
from django.db import connections

LOCK = 0x706F7274
"""`port` in ASCII; any number that nobody else locks in this database."""


class Command(migrate.Command):
    """Our database checks name what a migrate mends; they would stop it.

    Another job that migrates the same PostgreSQL database is waited for.
    """

    def check(self, *args: Any, **options: Any) -> None:
        """Run the checks that need no database."""
        super().check(*args, **{**options, "databases": None})

    def handle(self, *args: Any, **options: Any) -> None:
        """Wait, migrate, let the next one see that nothing is left to do."""
        with alone(options["database"]):
            super().handle(*args, **options)


@contextmanager
def alone(alias: str) -> Iterator[None]:
    """The only one in here with this PostgreSQL database; SQLite locks by itself."""
    connection = connections[alias]
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [LOCK])
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
