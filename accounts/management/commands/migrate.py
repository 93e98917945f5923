"""`manage.py migrate`: Django's, without database checks and one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.core.management import CommandError
from django.core.management.commands import migrate
from django.db import connections

LOCK = 0x706F7274
"""`port` in ASCII; no other advisory lock of this database may use it."""

POOLED = (
    "migrate needs its own connection: run it with DATABASE_POOLER=false, and with the "
    "address of PostgreSQL instead of the pooler's in DATABASE_URL."
)


class Command(migrate.Command):
    """Skip the database checks: they report what this command fixes, and would stop it.

    A second process waits until the first has migrated the same PostgreSQL database.
    """

    def check(self, *args: Any, **options: Any) -> None:
        """Run the checks that need no database."""
        super().check(*args, **{**options, "databases": None})

    def handle(self, *args: Any, **options: Any) -> None:
        """Wait for the lock; the next process then finds nothing left to migrate.

        Raises CommandError behind a pooler, which would lend the lock to others.
        """
        if settings.DATABASE_POOLER:
            raise CommandError(POOLED)
        with migration_lock(options["database"]):
            super().handle(*args, **options)


@contextmanager
def migration_lock(alias: str) -> Iterator[None]:
    """Take PostgreSQL's advisory lock; SQLite locks the file itself."""
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
