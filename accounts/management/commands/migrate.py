"""`manage.py migrate`: Django's, without asking first whether all is migrated."""

from __future__ import annotations

from typing import Any

from django.core.management.commands import migrate


class Command(migrate.Command):
    """Our database checks name what a migrate mends; they would stop it."""

    def check(self, *args: Any, **options: Any) -> None:
        """Run the checks that need no database."""
        super().check(*args, **{**options, "databases": None})
